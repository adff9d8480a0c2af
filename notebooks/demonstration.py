"""Put the cells of the one-hour demonstration into notebooks of their own: those whose slide metadata is not "skip".

usage: python notebooks/demonstration.py FOLDER

The run sheet is README.md beside this file. The copies keep the slide metadata, so that
`jupyter nbconvert --to slides` makes a deck of them.
"""

import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
NOTEBOOKS = ("04_broadcast.ipynb", "06_concurrency_and_disconnects.ipynb")


def shown(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell is part of the demonstration; only a cell that says so is."""
    return cell.metadata.get("slideshow", {}).get("slide_type", "skip") != "skip"


def excerpt(name: str) -> nbformat.NotebookNode:
    """Return a notebook with the cells of the demonstration only."""
    notebook = nbformat.read(HERE / name, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if shown(cell)]
    return notebook


def main() -> None:
    """Write the two excerpts; what an earlier demonstration left of them is overwritten."""
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in NOTEBOOKS:
        nbformat.write(excerpt(name), folder / name)
    print(f"The demonstration is in {folder}: {' and '.join(NOTEBOOKS)}")


if __name__ == "__main__":
    main()
