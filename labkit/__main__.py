"""`python -m labkit doctor`: the one command that labkit has."""

import sys

from labkit import doctor

USAGE = """usage: python -m labkit doctor

doctor   say whether this machine is ready for the course, and which command mends what is missing"""


def main(arguments: list) -> int:
    """Run the command that `arguments` name and return its exit code; 2, with the usage, for any other."""
    if arguments == ["doctor"]:
        return doctor.main()
    asked_for_help = arguments in (["-h"], ["--help"], ["help"])
    print(USAGE, file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
