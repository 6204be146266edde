#!/usr/bin/env python3
"""Pages of a PostgreSQL data directory: those that changed, and changing some.

usage: pages.py changed PGDATA LSN      prints: changed pages, all pages, raw bytes, bytes at zstd 3
       pages.py drift PGDATA PERCENT    overwrites part of that many pages; prints how many

`changed` counts the pages of relations (main fork) whose LSN is above LSN, and compresses them in batches of
1 MiB, each alone: what an incremental backup needs that is exact to the page and stores nothing else. Run it
behind a CHECKPOINT, before anything else writes. `drift` chooses by the names of files and the numbers of pages
only, so directories with the same files drift in the same places.
"""
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

PAGE = 8192
BATCH = 1 << 20
RELATION = re.compile(r"(base/[0-9]+|global)/[0-9]+(\.[0-9]+)?$")


def relations(pgdata):
    for folder in ["base", "global"]:
        for path, folders, files in os.walk(os.path.join(pgdata, folder)):
            folders.sort()
            for name in sorted(files):
                full = os.path.join(path, name)
                if RELATION.match(os.path.relpath(full, pgdata)):
                    yield full


def lsn(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def changed_pages(pgdata, since, count):
    for path in relations(pgdata):
        with open(path, "rb", buffering=0) as file:
            while data := file.read(BATCH):
                for at in range(0, len(data) - PAGE + 1, PAGE):
                    count["all"] += 1
                    high, low = struct.unpack_from("<II", data, at)
                    if high << 32 | low > since:
                        count["changed"] += 1
                        yield data[at:at + PAGE]


def changed(pgdata, since):
    count = {"all": 0, "changed": 0}
    with tempfile.TemporaryDirectory(prefix="lifeboat-bench-") as folder:
        batch, batches = bytearray(), 0

        def flush():
            nonlocal batches
            if batch:
                with open(f"{folder}/{batches:06}", "wb") as file:
                    file.write(batch)
                batches += 1
                batch.clear()

        for page in changed_pages(pgdata, lsn(since), count):
            batch += page
            if len(batch) == BATCH:
                flush()
        flush()
        names = [f"{folder}/{number:06}" for number in range(batches)]
        for part in range(0, batches, 1000):
            subprocess.run(["zstd", "-3", "-q", "--no-check", "--rm"] + names[part:part + 1000], check=True)
        stored = sum(entry.stat().st_size for entry in os.scandir(folder))
    print(count["changed"], count["all"], count["changed"] * PAGE, stored)


def drift(pgdata, percent):
    rng, count = random.Random(1), 0
    for path in relations(pgdata):
        pages = os.path.getsize(path) // PAGE
        chosen = [page for page in range(pages) if rng.random() < percent / 100]
        noise = rng.randbytes(256)
        if chosen:
            with open(path, "r+b", buffering=0) as file:
                for page in chosen:
                    file.seek(page * PAGE + 4096)
                    file.write(noise)
            count += len(chosen)
    print(count)


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "changed":
        changed(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 4 and sys.argv[1] == "drift":
        drift(sys.argv[2], float(sys.argv[3]))
    else:
        sys.exit(__doc__)
