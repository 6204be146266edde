#!/usr/bin/env python3
"""The Markdown table of bench.sh.

usage: table.py CSV

Medians over the rounds with (lowest–highest); ratios are of medians, to pgBackRest's in the same row (to `cp` for
replay, to nobody receiving for throughput, where more is better).
"""
import csv
import sys
from collections import defaultdict
from statistics import median

BOUND = "changed pages at zstd 3"
ROWS = {
    "full": "full",
    "incremental": "incremental, 20,000 scattered updates and 20,000 inserts",
    "unchanged": "incremental, nothing changed",
    "restore": "restore",
    "delta": "delta restore, 1 % of the pages differ",
    "replay": "replay of archived WAL",
    "throughput": "pgbench, WAL streamed",
}
REFERENCE = defaultdict(lambda: "pgBackRest", replay="cp", throughput="nobody receives")
# (row, tool): what is compared, the goal, and whether the ratio shall be at most or at least that.
GOALS = {
    ("full", "Lifeboat, direct"): [("wall", 0.8, "≤"), ("bytes", 1.0, "≤")],
    ("full", "Lifeboat, streamed"): [("wall", 1.0, "≤")],
    ("incremental", "Lifeboat"): [("wall", 0.35, "≤"), ("bytes", 0.42, "≤"), ("bound", 1.1, "≤")],
    ("unchanged", "Lifeboat"): [("wall", 0.8, "≤")],
    ("restore", "Lifeboat"): [("wall", 0.8, "≤")],
    ("delta", "Lifeboat"): [("wall", 0.3, "≤")],
    ("replay", "Lifeboat, restore"): [("speed", 0.95, "≥")],
    ("throughput", "Lifeboat, wal receive"): [("rate", 0.95, "≥")],
}
MIB = 1 << 20
RSS_GOAL = 256 * MIB


class Figures:
    """The values of one tool in one row."""

    def __init__(self, lines):
        self.lines = lines

    def all(self, column):
        return [float(line[column]) for line in self.lines if line[column] not in ("", None)]

    def median(self, column):
        values = self.all(column)
        return median(values) if values else None

    def cell(self, column, scale=1, digits=1):
        values = [value / scale for value in self.all(column)]
        if not values:
            return ""
        middle = f"{median(values):,.{digits}f}"
        return middle if len(values) == 1 else f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def ratio(mine, other):
    return mine / other if mine is not None and other else None


def ratios(name, figures, reference, bound):
    """What each kind of goal looks at."""
    wall = ratio(figures.median("wall_s"), reference and reference.median("wall_s"))
    values = {
        "wall": wall,
        "speed": 1 / wall if wall else None,
        "bytes": ratio(figures.median("stored_bytes"), reference and reference.median("stored_bytes")),
        "rate": ratio(figures.median("rate"), reference and reference.median("rate")),
        "bound": ratio(figures.median("stored_bytes"), bound and bound.median("stored_bytes")),
    }
    return values[name]


def verdict(row, tool, figures, reference, bound):
    told = []
    for name, goal, sign in GOALS.get((row, tool), []):
        value = ratios(name, figures, reference, bound)
        if value is None:
            continue
        met = value <= goal if sign == "≤" else value >= goal
        told.append(f"{name} {sign} {goal}: {value:.2f}{'' if met else ' **missed**'}")
    peak = max(figures.all("rss_bytes"), default=0)
    if tool.startswith("Lifeboat") and peak > RSS_GOAL:
        told.append(f"RSS ≤ 256 MiB: {peak / MIB:.0f} **missed**")
    return "; ".join(told)


def rss(figures):
    """The largest process, and all of them at one moment where that is more."""
    largest, together = figures.all("rss_bytes"), figures.all("rss_sum_bytes")
    if not largest:
        return ""
    text = f"{max(largest) / MIB:.0f}"
    return text if max(together) < 1.05 * max(largest) else f"{text} (all {max(together) / MIB:.0f})"


def show(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def main(path):
    rows = defaultdict(lambda: defaultdict(list))
    with open(path, newline="") as file:
        for line in csv.DictReader(file):
            rows[line["row"]][line["tool"]].append(line)
    print("| work | tool | wall s | ratio | peak RSS MiB | CPU s | machine's CPU s | stored MiB | ratio | objects | goal: reached |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for row, title in ROWS.items():
        tools = {tool: Figures(lines) for tool, lines in rows[row].items()}
        reference, bound = tools.get(REFERENCE[row]), tools.get(BOUND)
        for tool in sorted(tools, key=lambda name: (not name.startswith("Lifeboat"), name != REFERENCE[row], name)):
            figures = tools[tool]
            wall = figures.cell("wall_s") if row != "throughput" else figures.cell("rate", digits=0) + " tps"
            against = ratios("rate" if row == "throughput" else "wall", figures, reference, bound)
            cells = [title, tool, wall, show(against), rss(figures), figures.cell("cpu_s"), figures.cell("machine_cpu_s"),
                     figures.cell("stored_bytes", MIB), show(ratios("bytes", figures, reference, bound)),
                     figures.cell("objects", digits=0), verdict(row, tool, figures, reference, bound)]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
