#!/usr/bin/env python3
"""A filestore as Odoo's, for bench-filestore.sh.

usage: filestore.py DATA_DIR FILES

Writes DATA_DIR/filestore/shop/<2 hex>/<sha1> and DATA_DIR/names, the rows of ir_attachment for COPY. Sizes are
log-normal around 6 KiB (mean about 12 KiB, at most 2 MiB), by a fixed seed: thumbnails, e-mails, documents.
Half of the content is text-like and compresses, half is random as JPEG and PDF are.
"""
import hashlib
import os
import random
import sys


def main(data_dir, files):
    chance = random.Random(20261123)
    words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) + b" " for _ in range(4000)]
    text = b"".join(chance.choices(words, k=900_000))
    noise = chance.randbytes(8 << 20)
    root = os.path.join(data_dir, "filestore", "shop")
    for n in range(256):
        os.makedirs(os.path.join(root, f"{n:02x}"), exist_ok=True)
    with open(os.path.join(data_dir, "names.new"), "w") as names:
        for n in range(files):
            size = min(int(chance.lognormvariate(8.7, 1.2)) + 16, 2 << 20)
            source = text if n % 2 else noise
            at = chance.randrange(len(source) - size)
            # The head makes each content another one.
            content = b"%016d" % n + source[at : at + size]
            name = hashlib.sha1(content).hexdigest()
            name = f"{name[:2]}/{name}"
            with open(os.path.join(root, name), "wb") as file:
                file.write(content)
            names.write(f"file {n}\tsale.order\t{n}\t{name}\t{len(content)}\t{name[3:]}\n")
    os.rename(os.path.join(data_dir, "names.new"), os.path.join(data_dir, "names"))


main(sys.argv[1], int(sys.argv[2]))
