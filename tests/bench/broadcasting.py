"""How fast each way to broadcast is: the server's CPU for one delivery, by that of a C loop of send() beside it.

usage: make bench   or   python tests/bench/broadcasting.py [--full] [--quick]
--full measures the whole grid, which takes hours. --quick goes through the motions in some minutes, for a look whether
everything works. Nothing is asserted, since a busy machine is no bug.
"""

import argparse
import time

import beside
import grid
import report
from blocks import LEAST_PAIRS, measure
from programs import ROOT, ProgramFailed

# For the stages; memory, connecting and the gaps come after them and take up to three minutes.
_SECONDS = 11.5 * 60
_FULL_SECONDS = 4 * 3600


def main(options: argparse.Namespace) -> None:
    """Measure all, and write the report; what is measured is written after each stage, in case the next is stopped."""
    started_at = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_at:5.0f} s  {line}", flush=True)

    known = grid.Field(say)
    for line in known.missing:
        say(line)
    stages = (grid.whole_grid if options.full else grid.headline)(known)
    until = started_at + (_FULL_SECONDS if options.full else _SECONDS)
    # One pair shows whether a case works, and not how fast it is.
    least_pairs = 1 if options.quick else LEAST_PAIRS
    rows: list[dict] = []
    findings: list[beside.Finding] = []
    for place, stage in enumerate(stages):
        say(f"{stage.clients:,} clients, {len(stage.cases)} cases")
        shares = sum(each.share for each in stages[place:])
        now = time.monotonic()
        stage_until = now if options.quick else now + (until - now) * stage.share / shares
        series = measure(stage.cases, stage.clients, known.start, until=stage_until, least_pairs=least_pairs, say=say)
        rows += report.rows_of(series)
        report.write(ROOT / "build", rows, findings, known.missing)
    try:
        say("memory for a connection, connecting")
        findings += beside.connections(known.swarm)
        say(f"the loop during one publish to {beside.GAP_CLIENTS:,} clients")
        findings += beside.gaps(known.swarm, say)
    except ProgramFailed as failure:
        known.missing.append(f"What is measured beside the blocks is not complete: {failure}")
    report.write(ROOT / "build", rows, findings, known.missing)
    print()
    print(report.table(rows))
    print()
    for line in (*findings, *known.missing):
        print(line)
    say("build/bench.json, build/bench.md and build/bench.png are written")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--full", action="store_true", help="the whole grid")
    parser.add_argument("--quick", action="store_true", help="next to no blocks")
    main(parser.parse_args())
