"""Speed and ratio of zstd on pages of a filled cluster, by level and frame size.

usage: python3 deploy/bench/zstd_levels.py DATA_DIRECTORY     (needs the package zstandard)
"""

import glob
import os
import random
import sys
import time

import zstandard

SAMPLES, FRAME = 160, 1 << 20


def sample(data):
    files = [f for f in glob.glob(f"{data}/base/*/[0-9]*") if os.path.getsize(f) > 4 << 20 and "_" not in os.path.basename(f)]
    sizes = [os.path.getsize(f) for f in files]
    generator = random.Random(1)
    for path in generator.choices(files, weights=sizes, k=SAMPLES):
        with open(path, "rb") as file:
            file.seek(generator.randrange(os.path.getsize(path) - FRAME) // 8192 * 8192)
            yield file.read(FRAME)


# src/vault/frame.rs: what Lifeboat makes of level 3 for pages.
OWN = {"strategy": zstandard.STRATEGY_FAST, "hash_log": 18, "min_match": 6}


def measure(name, frames, level, size, **own):
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(level, source_size=size, **own)
    )
    began, stored = time.process_time(), 0
    for frame in frames:
        stored += sum(len(compressor.compress(frame[at : at + size])) for at in range(0, len(frame), size))
    raw = sum(map(len, frames))
    print(f"{name:24} {raw / (time.process_time() - began) / 1e6:6.0f} MB/s   ratio {raw / stored:.3f}")


frames = list(sample(sys.argv[1]))
for _ in range(3):
    for level in (1, 2, 3):
        measure(f"level {level}, 1 MiB", frames, level, FRAME)
    measure("Lifeboat's for pages", frames, 3, FRAME, **OWN)
    for size in (256 << 10, 128 << 10):
        measure(f"level 3, {size >> 10} KiB", frames, 3, size)
