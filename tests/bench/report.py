"""What is left of a run: rows for build/bench.json, a table for the terminal, and one for the README."""

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from blocks import DOCS_LOOP, LIMIT, Block, Series

TITLES = {DOCS_LOOP: "docs loop (NaiveManager)", LIMIT: "C loop of send()"}
HEAD = ("variant", "loop", "N", "body", "joined", "CPU µs", "quartiles", "× limit", "quartiles", "× docs", "last ms",
        "swarm µs", "n")  # fmt: skip
_COMMANDS = "`make bench` (a quarter of an hour), the whole grid: `make bench-full` (some hours)"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median, third quartile; one value is all three."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def rows_of(stage: Sequence[Series]) -> list[dict]:
    """Return the rows of a stage, which is one number of clients: the limit first, then in the order of the cases."""
    docs = {
        series.case.body_bytes: series.pairs
        for series in stage
        if series.case.variant == DOCS_LOOP and series.case.joined == 1
        and series.case.loop == "asyncio" and not series.case.deflate
    }  # fmt: skip
    rows = []
    for body_bytes in dict.fromkeys(series.case.body_bytes for series in stage):
        of_limit = [block for s in stage if s.case.body_bytes == body_bytes for _, block in s.pairs.values()]
        if of_limit:
            rows.append(limit_row(stage[0].clients, body_bytes, of_limit, docs.get(body_bytes, {})))
    return rows + [row_of(series, docs.get(series.case.body_bytes, {})) for series in stage if series.pairs]


def limit_row(clients: int, body_bytes: int, of_limit: list[Block], docs: dict) -> dict:
    """Return the limit's own row: all of its blocks, at whatever pace they were beside."""
    row = {"variant": LIMIT, "version": "", "clients": clients, "body_bytes": body_bytes, "joined": 1, "deflate": False}
    row |= {"loop": "C", **figures(of_limit), "ratio_to_limit": 1.0, "ratio_to_limit_quartiles": [1.0, 1.0]}
    to_docs = [limit.cpu_us / block.cpu_us for block, limit in docs.values()]
    return row | to_docs_loop(to_docs)


def row_of(series: Series, docs: dict) -> dict:
    """Return the row of a case."""
    case = series.case
    low, middle, high = spread([block.cpu_us / limit.cpu_us for block, limit in series.pairs.values()])
    to_docs = [block.cpu_us / nearest(docs, number).cpu_us for number, (block, _) in series.pairs.items() if docs]
    return {
        "variant": case.variant,
        "version": series.version,
        "clients": series.clients,
        "body_bytes": case.body_bytes,
        "joined": case.joined,
        "deflate": case.deflate,
        "loop": case.loop,
        **figures([block for block, _ in series.pairs.values()]),
        "ratio_to_limit": middle,
        "ratio_to_limit_quartiles": [low, high],
        **to_docs_loop(to_docs),
        "every_us": series.pace.every_us,
        "turns": series.pace.turns,
    }


def nearest(docs: dict, number: int) -> Block:
    """Return the docs loop's block of this round, or of the nearest one: dear cases do not play in every round."""
    return docs[min(docs, key=lambda each: abs(each - number))][0]


def figures(blocks: list[Block]) -> dict:
    """Return what a row says of its blocks alone."""
    low, middle, high = spread([block.cpu_us for block in blocks])
    return {
        "cpu_us_per_delivery": middle,
        "cpu_us_quartiles": [low, high],
        "swarm_cpu_us_per_delivery": statistics.median(block.swarm_us for block in blocks),
        # Nobody looks for a stamp into what is compressed, and 0 stands for none.
        "last_arrival_ms": statistics.median(block.last_arrival_ms for block in blocks) or None,
        "blocks": len(blocks),
    }


def to_docs_loop(ratios: list[float]) -> dict:
    """Return the ratios to the docs loop's block of the nearest round; none where it was not measured."""
    if not ratios:
        return {"ratio_to_docs_loop": None, "ratio_to_docs_loop_quartiles": None}
    low, middle, high = spread(ratios)
    return {"ratio_to_docs_loop": middle, "ratio_to_docs_loop_quartiles": [low, high]}


def title_of(row: dict) -> str:
    """Return what a row's variant is called in tables and in the figure."""
    name = TITLES.get(row["variant"], row["variant"])
    return f"{name}, deflate agreed" if row["deflate"] else name


def number(value: float | None) -> str:
    """Return a number with three digits that count."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 99.5 else f"{value:#.3g}"


def cells_of(row: dict) -> list[str]:
    """Return a row as the table shows it."""
    return [
        title_of(row), row["loop"], f"{row['clients']:,}", f"{row['body_bytes']:,}", str(row["joined"]),
        number(row["cpu_us_per_delivery"]), " – ".join(map(number, row["cpu_us_quartiles"])),
        number(row["ratio_to_limit"]), " – ".join(map(number, row["ratio_to_limit_quartiles"])),
        number(row["ratio_to_docs_loop"]), number(row["last_arrival_ms"]),
        number(row["swarm_cpu_us_per_delivery"]), str(row["blocks"]),
    ]  # fmt: skip


def table(rows: Sequence[dict]) -> str:
    """Return the rows in columns, for a terminal."""
    lines = [list(HEAD), *map(cells_of, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    # Names stand to the left, numbers to the right.
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
        for line in lines
    )  # fmt: skip


def machine() -> str:
    """Return a line on what this was measured with."""
    processor = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "starlette", "uvicorn", "websockets"))
    return (
        f"{os.cpu_count()} cores ({processor}), {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def _lines(path: str) -> list[str]:
    """Return the lines of a file, none where it is not there."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def markdown(rows: Sequence[dict], findings: Sequence[object], missing: Sequence[str]) -> str:
    """Return the table for the README, with date and machine, and how to repeat it."""
    # Of a peer that broadcasts in several ways, `ws, one buffer` and the like, one line is enough.
    versions = {
        row["variant"]: row["version"]
        for row in rows
        if row["loop"] != "C" and not row["version"].startswith("uvicorn-") and ", " not in row["variant"]
    }
    peers = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines = [
        f"Measured on {time.strftime('%Y-%m-%d')}: {machine()}" + (f"; {peers}." if peers else "."),
        f"To repeat it: {_COMMANDS}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "|".join("---" if place < 2 else "--:" for place in range(len(HEAD))) + "|",
        *("| " + " | ".join(cells_of(row)) + " |" for row in rows),
        "",
        "CPU µs: of the server, for one delivery, median and quartiles of n blocks. × limit: by the block of the C",
        "loop beside it, at the same pace, one message each. × docs: by the docs loop's block of the nearest round.",
        "last ms: from publish to the arrival at the last client. swarm µs: what the clients used for one delivery.",
        "",
        *(f"- {finding}" for finding in findings),
        *(f"- {line}" for line in missing),
    ]
    return "\n".join(lines) + "\n"


def write(folder: Path, rows: Sequence[dict], findings: Sequence[object], missing: Sequence[str]) -> None:
    """Write bench.json, bench.md and bench.png into a folder."""
    # Here, since it takes a second that a test of the rest need not pay for.
    from figure import draw

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "bench.md").write_text(markdown(rows, findings, missing), encoding="utf-8")
    (folder / "bench.png").write_bytes(draw(rows))
