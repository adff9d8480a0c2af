"""How clients are named by their numbers."""


def ranges(numbers: list[int]) -> str:
    """Return numbers in a readable form: [1, 2, 3, 7] is "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
