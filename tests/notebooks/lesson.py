"""Reading the notebooks, for the tests in this folder."""

import ast
from pathlib import Path

import nbformat

DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = (
    "01_websocket_basics",
    "02_fastapi_websocket",
    "03_managing_connections",
    "04_broadcast",
    "05_connection_manager",
    "06_concurrency_and_disconnects",
    "07_scaling_with_redis",
)


def read(name: str) -> nbformat.NotebookNode:
    """Return a notebook by its name without the ending."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    """Return the sources of a notebook's code cells."""
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def prose_cells(name: str) -> list[str]:
    """Return the sources of a notebook's prose cells."""
    return [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]


def definitions_in(source: str) -> dict[str, ast.stmt]:
    """Return the classes and functions that a piece of source defines at its top level, docstrings taken out."""
    found = {node.name: node for node in ast.parse(source).body if isinstance(node, DEFINITIONS)}
    for definition in found.values():
        for node in ast.walk(definition):
            if isinstance(node, DEFINITIONS) and ast.get_docstring(node):
                node.body = node.body[1:]
    return found
