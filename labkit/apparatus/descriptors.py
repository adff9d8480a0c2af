"""File descriptors: each connection takes one at each end, and the system gives a process only so many."""

import os

try:
    import resource
except ImportError:  # Windows outside WSL has no such limit.
    resource = None

# What a kernel or a fleet process needs beside the connections.
_SPARE = 64


class TooManyDescriptors(OSError):
    """More connections are wanted than the system lets this process open."""


def open_descriptors() -> int:
    """Return how many file descriptors this process has open."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return _SPARE


def allow_descriptors(more: int, what: str) -> None:
    """Make room for this many more descriptors, raising the soft limit if need be.

    more: how many. what: what they are for, in a word, for the message.
    Raises TooManyDescriptors with the numbers when the hard limit does not allow it.
    """
    if resource is None:
        return
    needed = open_descriptors() + more + _SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise TooManyDescriptors(
                f"{more} {what} need {needed} file descriptors in one process, and this system allows {hard} "
                f"(the hard limit; `ulimit -Hn` shows it). Ask for {max(0, more - needed + hard)} or fewer."
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
