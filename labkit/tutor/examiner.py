"""The kernel's side of a trial: what an answer is, how it travels, and the warm process that it travels to."""

import asyncio
import inspect
import linecache
import pickle
import sys
from types import CodeType

import cloudpickle

from labkit.apparatus import running
from labkit.apparatus.children import Child, ChildFailed, new_folder, start_child

NAME = "examiner"
# Longer than the judge's own limit: it answers for an answer that cannot.
_ANSWER_SECONDS = 15.0


class CannotTravel(Exception):
    """An answer cannot be sent to another process; the message names what holds it back."""


async def examine(identifier: str, answer: object) -> dict:
    """Try an answer in the warm process and return the verdict: outcome, message, printed.

    Raises CannotTravel, or ChildFailed when the process cannot be started.
    """
    request = pickle.dumps((identifier, packed(answer), sources_of(answer)))
    for _ in range(2):
        try:
            return await _ask(request)
        except (OSError, asyncio.IncompleteReadError):
            # It has been killed, by the system for instance, or does not answer; a new one knows nothing of that.
            examiner = running.find(Child.kind, NAME)
            if examiner is not None:
                await examiner.close()
    raise ChildFailed(
        "The process that tries answers has ended twice without a verdict. Is this machine short of memory? "
        "Run the cell again; if it stays so, restart the kernel."
    )


async def _ask(request: bytes) -> dict:
    examiner = await warm()
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(examiner.folder / "judge.sock"))
        try:
            writer.write(len(request).to_bytes(8) + request)
            size = int.from_bytes(await reader.readexactly(8))
            return pickle.loads(await reader.readexactly(size))
        finally:
            writer.close()


async def warm() -> Child:
    """Return the warm process, started if there is none."""
    examiner = running.find(Child.kind, NAME)
    if examiner is not None and examiner.is_running:
        return examiner
    if examiner is not None:
        await examiner.close()
    folder = new_folder()
    path = folder / "judge.sock"

    async def ready() -> bool:
        return path.exists()

    arguments = [sys.executable, "-m", "labkit.tutor.judge", str(path)]
    return await start_child(arguments, name=NAME, folder=folder, ready=ready, timeout=20.0)


def packed(answer: object) -> bytes:
    """Return the answer as bytes, with the functions and values of the notebook that it uses."""
    try:
        return cloudpickle.dumps(answer)
    except Exception as error:
        culprits = [f"`{name}`" for name, value in globals_used_by(answer).items() if not can_travel(value)]
        used = f"{' and '.join(culprits)} of this notebook, which is" if culprits else f"something ({error}) that is"
        raise CannotTravel(
            f"Your answer uses {used} alive here and cannot be sent along. "
            "Use what the function is given, and what it makes itself."
        ) from None


def can_travel(value: object) -> bool:
    """Return whether a value can be sent to another process."""
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def functions_in(answer: object) -> list:
    """Return the functions that an answer consists of: itself, or the methods of a class and of the learner's bases."""
    classes = [each for each in inspect.getmro(answer) if of_notebook(each, answer)] if inspect.isclass(answer) else []
    members = [member for each in classes for member in vars(each).values()] if classes else [answer]
    members = [getattr(member, "__func__", member) for member in members]
    return [inspect.unwrap(member) for member in members if inspect.isfunction(member)]


def of_notebook(base: type, answer: type) -> bool:
    """Whether a class is written where the answer is, and not one of the laboratory's."""
    return base.__module__ == answer.__module__


def globals_used_by(answer: object) -> dict[str, object]:
    """Return the global names that an answer uses, with their values."""
    used = {}
    for function in functions_in(answer):
        names = names_in(function.__code__)
        used |= {name: value for name, value in function.__globals__.items() if name in names}
    return used


def names_in(code: CodeType) -> set[str]:
    """Return the names that a piece of code looks up, those of the functions inside it included."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def sources_of(answer: object) -> dict[str, list[str]]:
    """Return the lines of the cells that an answer and the functions it uses were written in, by file name."""
    functions = functions_in(answer)
    for value in globals_used_by(answer).values():
        functions += functions_in(value) if getattr(value, "__module__", None) == answer.__module__ else []
    names = {function.__code__.co_filename for function in functions}
    return {name: linecache.getlines(name) for name in names}
