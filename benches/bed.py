#!/usr/bin/env python3
"""The verbs provider beside perftest and rsockets, on the kernel's software devices, in the test bed: bed.py [--write] BIN

Wants what `make setup-kernel` sets up. BIN gets the library and the programs that run in the bed. --write: the table goes to
doc/performance.md, else it is only printed.
"""
import argparse, collections, datetime, os, pathlib, statistics, subprocess, sys

from tables import Failed, replace_between, spread

TOP = pathlib.Path(__file__).resolve().parent.parent
RAW = TOP / "build/testbed/out/figures.raw"
DEVICES = ("rxe0", "siw0")
# What figures.sh measures, and the target; send_lat is a time, the others are rates.
ROWS = {
    "send_lat": ("Send of 64 octets, half a round trip, in perftest's", 1.05),
    "write_bw": ("RDMA Writes of 64 KiB, of perftest's bandwidth", 0.97),
    "read_bw": ("RDMA Reads of 64 KiB", 0.97),
    "write_rate": ("RDMA Writes of 64 octets, of perftest's rate", 0.95),
}


def run(command, **environment):
    if subprocess.run(command, cwd=TOP, env={**os.environ, **environment}).returncode:
        raise Failed(f"{' '.join(map(str, command))} failed")


def measure(root, programs, rounds):
    """Figures of all rounds, by device, measurement, and program."""
    run(["make", "--no-print-directory", "install", "DESTDIR=", f"PREFIX={root}", f"LIBDIR={root}/lib",
         f"INCLUDEDIR={root}/include", f"MANDIR={root}/share/man"])
    run(["testbed/peers/build.sh", programs], PKG_CONFIG_PATH=f"{root}/lib/pkgconfig")
    RAW.unlink(missing_ok=True)
    run(["testbed/check.sh", "testbed/suites/figures.sh"], BED_BIN=str(programs), BED_ROOT=str(root), BED_FIGURES="all",
        BED_ROUNDS=str(rounds), BED_LIMIT="1200")
    found = collections.defaultdict(dict)
    for line in RAW.read_text().splitlines():
        device, what, who, *values = line.split()
        found[device, what][who] = list(map(float, values))
    return found


def cell(found, device, what, who, bound=None):
    figures = found[device, what]
    if who not in figures:
        return "-"
    values = [mine / theirs for mine, theirs in zip(figures[who], figures["perftest"], strict=True)]
    median = statistics.median(values)
    missed = bound is not None and (median > bound if what == "send_lat" else median < bound)
    return spread(values) + (", **missed**" if missed else "")


def table(found, rounds):
    yield (f"{rounds} rounds, {datetime.date.today()}.\n\n| medians of the rounds' ratios (spread) | bound | "
           f"{' | '.join(device[:-1] for device in DEVICES)} |\n|---|---|---|---|")
    for what, (name, bound) in ROWS.items():
        cells = " | ".join(cell(found, device, what, "ours", bound) for device in DEVICES)
        yield f"| {name} | {'<=' if what == 'send_lat' else '>='} {bound} | {cells} |"
    for what, name in (("send_lat", "half a round trip"), ("write_bw", "bandwidth")):
        cells = " | ".join(cell(found, device, what, "rstream") for device in DEVICES)
        yield f"| rsockets (`rstream`), {name}, as above | | {cells} |"
    yield ""


def main():
    rounds = 5
    found = "\n".join(table(measure(options.bin / "root", options.bin / "bed", rounds), rounds))
    print(found)
    if options.write:
        replace_between(TOP / "doc/performance.md", "bed", found)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--write", action="store_true")
parser.add_argument("bin", type=lambda path: pathlib.Path(path).resolve())
options = parser.parse_args()
try:
    main()
except (Failed, OSError) as error:
    sys.exit(f"bed.py: {error}")
