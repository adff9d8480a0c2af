"""Who looks at this kernel: nobody, a program that runs a notebook through, or somebody at a front end."""

import sys
from typing import Any


def running_shell() -> Any | None:
    """Return IPython's shell where this runs in one; whoever has not loaded IPython is in none."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def somebody_watches() -> bool:
    """Return whether the cell that runs was sent by a front end with somebody in front of it.

    Every request to run a cell says whether its sender can be asked for input: JupyterLab can, nbclient, nbconvert and
    nbval cannot.
    """
    shell = running_shell()
    return hasattr(shell, "kernel") and bool(shell.get_parent().get("content", {}).get("allow_stdin"))
