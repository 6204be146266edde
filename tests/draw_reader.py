#!/usr/bin/env python3
"""Draws every random drill of a ledger again. Shares no code with Lifeboat, knows docs/format.md ("Draws"),
needs nothing but Python 3.9 and a copy of ENV's ledger. Signatures are another program's business.

draw_reader.py LEDGER-FOLDER: one line for each draw; exit code 1 where one does not come out.
"""

import base64
import hashlib
import itertools
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path


def draw(seed, entry, n):
    for i in itertools.count():
        block = hashlib.sha256(b"lifeboat draw 1\n" + seed + entry + i.to_bytes(8, "big")).digest()
        number = int.from_bytes(block[:8], "big")
        if number < 2**64 // n * n:
            return number % n


def when(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds(frame):
    for interval in frame["intervals"]:
        at = when(interval["from"])
        while at <= when(interval["to"]):
            yield at, interval["timeline"]
            at += timedelta(seconds=1)


committed, wrong = {}, 0
for path in sorted(Path(sys.argv[1]).glob("*.json")):
    envelope = path.read_bytes()
    body = json.loads(base64.b64decode(json.loads(envelope)["payload"]))["predicate"]["body"]
    number = int(path.stem)
    if body["kind"] == "drill_draw":
        committed[number] = (hashlib.sha256(envelope).digest(), body)
    claimed = (body.get("sampling") or {}).get("draw") if body["kind"] == "drill" else body.get("draw")
    if not claimed:
        continue
    entry, commitment = committed.pop(claimed["entry"])
    frame, seed = list(seconds(commitment["frame"])), bytes.fromhex(claimed["seed"])
    second, timeline = frame[draw(seed, entry, len(frame))]
    holds = (
        hashlib.sha256(seed).hexdigest() == commitment["seed_sha256"]
        and (second, timeline) == (when(claimed["second"]), claimed["timeline"])
        and (body["kind"] != "drill" or when(body["target"]["requested"]) == second)
    )
    wrong += not holds
    print("right" if holds else "WRONG", number, len(frame), second.isoformat())
for number in committed:
    print("never revealed", number)
sys.exit(1 if wrong else 0)
