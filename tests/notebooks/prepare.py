"""Copy the notebooks for a test run, each with the guard as its last cell.

usage: python tests/notebooks/prepare.py FOLDER [--twice] [NOTEBOOK ...]

nbval runs one cell at a time and sees no failure behind a cell. The guard's cell fails the notebook when a handler has
crashed, a task or a thread has died, a server has stopped by itself, or anything was left running.
--twice puts all cells in a second time: run all, then run all again, in one kernel.
"""

import argparse
import shutil
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
GUARD = """\
from labkit.apparatus import guard, running
_closed = await running.close_lab()
guard.check()
assert not any(_closed.closed.values()) and not _closed.cancelled, f"the notebook left behind: {_closed!r}"
assert _closed.nothing_left, repr(_closed)"""


def prepared(path: Path, *, twice: bool) -> nbformat.NotebookNode:
    """Return a notebook with its cells once or twice, each time with the guard behind them."""
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for _ in range(2 if twice else 1):
        # The same id may not stand in a notebook twice.
        cells += [nbformat.v4.new_code_cell(cell.source, metadata=cell.metadata) for cell in notebook.cells
                  if cell.cell_type == "code"]  # fmt: skip
        cells.append(nbformat.v4.new_code_cell(GUARD))
    notebook.cells = cells
    return notebook


def main() -> None:
    """Write the copies into a fresh folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("notebooks", type=Path, nargs="*", help="default: all of the course")
    parser.add_argument("--twice", action="store_true", help="run all, then run all again, in one kernel")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    paths = options.notebooks or sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    for path in paths:
        nbformat.write(prepared(path, twice=options.twice), options.folder / path.name)
    print(f"{len(paths)} notebooks prepared in {options.folder}{', each to run twice' if options.twice else ''}")


if __name__ == "__main__":
    main()
