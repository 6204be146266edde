#!/usr/bin/env python3
"""The Markdown table of bench-filestore.sh.

usage: filestore_table.py CSV

Medians with (lowest–highest); ratios are of medians, to the faster of the other tools in the same row.
"""
import csv
import sys
from collections import defaultdict
from statistics import median

GOALS = {"first": 0.8, "unchanged": 0.1}
MIB = 1 << 20


def figure(values, unit=1.0, digits=2):
    values = [float(v) / unit for v in values if v != ""]
    if not values:
        return "–"
    spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{spread}"


def main(path):
    rows = defaultdict(list)
    with open(path) as file:
        for line in csv.DictReader(file):
            rows[line["row"], line["tool"]].append(line)
    print("| capture | tool | wall s | CPU s | CPU s, machine | peak RSS MiB | stored MiB | to the faster other |")
    print("|---|---|---|---|---|---|---|---|")
    for row, goal in GOALS.items():
        walls = {tool: median(float(l["wall_s"]) for l in lines) for (r, tool), lines in rows.items() if r == row}
        for tool in sorted(walls, key=walls.get):
            lines = rows[row, tool]
            column = lambda name, *unit: figure([l[name] for l in lines], *unit)
            others = [wall for other, wall in walls.items() if other != tool]
            ratio = f"{walls[tool] / min(others):.3f}" if others else "–"
            if tool == "Lifeboat" and others:
                ratio = f"**{ratio}** (goal ≤ {goal}: {'met' if walls[tool] / min(others) <= goal else 'MISSED'})"
            print(f"| {row} | {tool} | {column('wall_s')} | {column('cpu_s')} | {column('machine_cpu_s')} "
                  f"| {column('rss_sum_bytes', MIB, 0)} | {column('stored_bytes', MIB, 1)} | {ratio} |")


main(sys.argv[1])
