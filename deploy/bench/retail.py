#!/usr/bin/env python3
"""Fill a database with rows as a retailer's Odoo has them; SQL with COPY blocks on standard output.

usage: retail.py GIB | psql DATABASE

Half of the volume is messages (words with Zipf's frequencies), a third narrow stock lines with four indexes, the
rest tokens that do not compress. The same number always gives the same rows.
"""
import base64
import random
import sys

rng = random.Random(3)
size = float(sys.argv[1]) * 1024**3
letters = "abcdefghijklmnopqrstuvwxyz"
words = ["".join(rng.choices(letters, k=rng.randint(2, 11))) for _ in range(30000)]
text = rng.choices(words, [1 / (rank + 3) for rank in range(len(words))], k=1_500_000)
models = ["sale.order", "stock.picking", "account.move", "res.partner", "product.template"]


def date(i):
    return f"2026-{1 + i % 12:02}-{1 + i % 28:02} {i % 24:02}:{i % 60:02}:{i * 7 % 60:02}"


def message(i):
    n = rng.randint(20, 90)
    start = rng.randrange(len(text) - n)
    body = " ".join(text[start:start + n])
    return f"{rng.randrange(1_000_000)}\t{models[i % 5]}\t{rng.randrange(900)}\t{date(i)}\t<p>{body}</p>\n"


def stock_line(i):
    return (f"{rng.randrange(60000)}\tLOT{rng.randrange(10**8):08}\t{rng.randrange(1, 900) / 10}\t{rng.randrange(200)}\t"
            f"{rng.randrange(200)}\t{date(i)}\tWH/OUT/{i:08}\n")


def token(_):
    return f"{rng.getrandbits(128):032x}\t{base64.b64encode(rng.randbytes(380)).decode()}\n"


def table(name, columns, share, row_bytes, row):
    names = ", ".join(column.split()[0] for column in columns)
    print(f"CREATE TABLE {name} (id bigserial PRIMARY KEY, {', '.join(columns)});\nCOPY {name} ({names}) FROM stdin;")
    for i in range(int(size * share / row_bytes)):
        sys.stdout.write(row(i))
    print("\\.")


table("mail_message", ["res_id int", "model text", "author_id int", "date timestamp", "body text"], 0.50, 520, message)
table("stock_move_line", ["product_id int", "lot text", "quantity numeric", "location_id int", "location_dest_id int",
                          "date timestamp", "reference text"], 0.30, 140, stock_line)
table("api_token", ["token text", "blob text"], 0.12, 600, token)
print("CREATE INDEX ON mail_message (model, res_id);\nCREATE INDEX ON stock_move_line (product_id, location_id);\n"
      "CREATE INDEX ON stock_move_line (lot);")
