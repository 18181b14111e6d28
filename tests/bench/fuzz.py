"""Bar 7 of the second part: every parser fed with damaged input, ten minutes each when run by hand."""

from __future__ import annotations

import argparse
import random
import sys

from tests.bench.report import Bar
from tests.fuzz.run import HANG_S, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="for each parser")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=sorted(TARGETS), action="append")
    args = parser.parse_args()
    bar = Bar(7, f"fuzzing, {args.seconds:.0f} s a parser")
    seed = random.randrange(1 << 32) if args.seed is None else args.seed
    bar.note(f"seed {seed}")
    for name in args.only or TARGETS:
        found = fuzz(TARGETS[name], args.seconds, seed)
        bar.figure(f"{name} {found.inputs} inputs, {found.refused} refused, slowest {found.slowest_s * 1e3:.1f} ms")
        for fault in found.faults:
            bar.note(fault)
        bar.require(not found.escapes, f"{name} let {len(found.escapes)} errors escape")
        bar.require(found.slowest_s <= HANG_S, f"{name} took {found.slowest_s * 1e3:.0f} ms")
    return bar.finish()


if __name__ == "__main__":
    sys.exit(main())
