"""Prints what became of every known answer, at the end of the test run."""

SIGNS = {"not attempted": "○", "not yet": "✘", "done": "✔"}


def pytest_terminal_summary(terminalreporter, config):
    """Print a line for each exercise: its answers, each with the sign of its verdict."""
    verdicts = config.stash.get("verdicts", {})
    if not verdicts:
        return
    terminalreporter.section("answers and their verdicts (○ not attempted, ✘ not yet, ✔ done)")
    for identifier, mine in sorted(verdicts.items()):
        signs = "  ".join(f"{SIGNS[verdict.outcome]} {name}" for name, verdict in mine.items())
        terminalreporter.write_line(f"{identifier}  {signs}")
