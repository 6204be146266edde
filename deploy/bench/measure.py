#!/usr/bin/env python3
"""Run one command, measure it, and append a line to a CSV file (bench.sh wrote its heading).

usage: measure.py --csv FILE --round N --row ROW --tool TOOL --output FILE [--repository DIR [--without NAME]…]
                  [--server-log GLOB] -- COMMAND…

Measured: wall-clock seconds; CPU seconds of the command and of all children it waited for; CPU seconds of the
whole machine meanwhile (so what a server did for the command shows too); the highest resident size (VmHWM) of
any process below the command that is not a PostgreSQL server, and the highest sum over those processes at one
moment (both sampled every 50 ms, so a process's last moments may be missed; GNU time's figure, the largest of
all processes that were waited for, is the lower bound); bytes and files that appeared below --repository,
hard links counted once, folders called --without left out.

--server-log keeps the log of a server that the command starts and removes, and takes from it how long redo took.
Exit code: that of the command; what it wrote is in --output.
"""
import argparse
import csv
import glob
import os
import re
import sys
import threading
import time

FIELDS = ["round", "row", "tool", "wall_s", "cpu_s", "machine_cpu_s", "rss_bytes", "rss_sum_bytes", "stored_bytes",
          "objects", "rate"]


def redo_seconds(log):
    """Seconds of redo by PostgreSQL's own clock, from its log."""
    done = re.findall(r"redo done at .* elapsed: ([0-9.]+) s", log)
    return float(done[-1]) if done else None


def machine_cpu():
    with open("/proc/stat") as stat:
        user, nice, system, _, _, irq, softirq = (int(n) for n in stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def content(folder, without):
    """Bytes and number of files below a folder."""
    size, seen = 0, set()
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for name in files:
            try:
                about = os.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue
            if about.st_ino not in seen:
                seen.add(about.st_ino)
                size += about.st_size
    return size, len(seen)


def children(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as file:
                found += [int(child) for child in file.read().split()]
        except OSError:
            pass
    return found


def resident(pid):
    """(highest, present) resident bytes of a process, or None for PostgreSQL's servers and what has gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":", 1) for line in file)
    except (OSError, ValueError):
        return None
    if status.get("Name", "").strip() == "postgres" or "VmHWM" not in status:
        return None
    return tuple(int(status[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS"))


class Watcher(threading.Thread):
    """Looks at the processes below one, and at the log of a server, until told to stop."""

    def __init__(self, pid, log_glob):
        super().__init__(daemon=True)
        self.pid, self.log_glob, self.log = pid, log_glob, None
        self.peak, self.peak_sum, self.done = 0, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.05):
            below, total = [self.pid], 0
            for pid in below:
                size = resident(pid)
                if size:
                    self.peak, total = max(self.peak, size[0]), total + size[1]
                below += children(pid)
            self.peak_sum = max(self.peak_sum, total)
            if self.log_glob and not self.log:
                for path in glob.glob(self.log_glob):
                    try:
                        self.log = open(path)
                    except OSError:
                        pass


def main():
    parser = argparse.ArgumentParser()
    for name in ("csv", "round", "row", "tool", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--repository")
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--server-log")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    before = content(options.repository, options.without) if options.repository else None
    output = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.sync()
    busy, began = machine_cpu(), time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.execvp(options.command[0], options.command)
        except OSError as error:
            os.write(2, f"{options.command[0]}: {error}\n".encode())
        os._exit(127)
    watcher = Watcher(pid, options.server_log)
    watcher.start()
    _, status, usage = os.wait4(pid, 0)
    wall = time.monotonic() - began
    busy = machine_cpu() - busy
    watcher.done.set()
    watcher.join()
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        return code if code > 0 else 128 - code

    # rusage takes the largest of all processes, servers among them: only good where there was no sample.
    peak = watcher.peak or usage.ru_maxrss * 1024
    line = {"round": options.round, "row": options.row, "tool": options.tool, "wall_s": f"{wall:.3f}",
            "cpu_s": f"{usage.ru_utime + usage.ru_stime:.3f}", "machine_cpu_s": f"{busy:.2f}",
            "rss_bytes": peak, "rss_sum_bytes": max(watcher.peak_sum, peak)}
    if before:
        after = content(options.repository, options.without)
        line["stored_bytes"], line["objects"] = after[0] - before[0], after[1] - before[1]
    if options.server_log:
        seconds = redo_seconds(watcher.log.read()) if watcher.log else None
        if seconds is None:
            print("the server's log does not say how long redo took", file=sys.stderr)
            return 1
        line["wall_s"] = f"{seconds:.3f}"
    with open(options.csv, "a", newline="") as file:
        csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
