"""What a guard is told, checked: an argument that cannot be meant is an error that says what was seen."""

import hmac
import math
import re
from collections.abc import Callable, Iterable

from labkit.broadcast.parts.guard.limits import Limits
from labkit.broadcast.parts.guard.tokens import PLACES

# How long a client may have been unheard, with what it sent meanwhile coming at once.
_BURST_SECONDS = 5.0
# As browsers write it: lower case, a port only where it is not the usual one, and nothing after it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[1-9][0-9]*)?")
_USUAL_PORT = {"http": ":80", "https": ":443"}


def checked_origins(origins: Iterable[str]) -> frozenset[str]:
    """Return the origins; raise ValueError for one that no browser would send, since it would let nobody in."""
    listed = checked_texts("origins", origins, "https://scores.example")
    for origin in listed:
        scheme, _, rest = origin.partition("://")
        usual_port = _USUAL_PORT.get(scheme)
        if not _ORIGIN.fullmatch(origin) or (usual_port and rest.endswith(usual_port)):
            raise ValueError(
                f"no browser sends the origin {origin!r}. It is a scheme and a host in lower case, a port only where "
                "that is not the usual one, and no slash at the end: https://scores.example. For any page leave it out."
            )
    return frozenset(listed)


def checked_token(token: object) -> Callable[[str], object] | None:
    """Return a function that says whether a token is good, None for no token; never quote the token."""
    if token is None:
        return None
    if isinstance(token, str):
        if not re.fullmatch(r"[!-~]+", token):
            raise ValueError(
                f"the token has {len(token)} characters, and needs one at least, all of them visible ASCII: others do "
                "not get through a header. Is the setting that it comes from empty? For no token give None."
            )
        expected = token.encode()
        # The comparison takes as long for a nearly right token as for a wrong one.
        return lambda shown: hmac.compare_digest(shown.encode(), expected)
    if not callable(token):
        raise TypeError(f"token is a text, or a function that gets one, and here it is {type(token).__name__}")
    return token


def checked_places(token_from: Iterable[str], origins: frozenset[str] | None) -> tuple[str, ...]:
    places = checked_texts("token_from", token_from, "header")
    unknown = [place for place in places if place not in PLACES]
    if unknown or not places:
        raise ValueError(f"token_from is {places!r}, and names at least one of {', '.join(PLACES)}, no others")
    if "cookie" in places and origins is None:
        raise ValueError(
            "a browser sends its cookie from a stranger's page too: with token_from=['cookie'] give `origins` as well"
        )
    return places


def checked_texts(name: str, texts: object, example: str) -> tuple[str, ...]:
    """Return several texts as a tuple; raise TypeError for one text alone, whose letters would be taken for texts."""
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} is a list of texts, such as [{example!r}], and here it is {texts!r}")
    texts = tuple(texts)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{name} is a list of texts, such as [{example!r}], and here it is {texts!r}")
    return texts


def checked_count(name: str, count: object) -> int | None:
    if count is None:
        return None
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"{name} is a whole number, or None for no limit, and here it is {count!r}")
    if count < 1:
        raise ValueError(f"{name} is {count}, which lets nothing pass. For no limit give None")
    return count


def checked_limits(max_message_bytes: object, messages_per_second: object, burst: object) -> Limits:
    most = checked_count("max_message_bytes", max_message_bytes)
    burst = checked_count("burst", burst)
    rate = messages_per_second
    if rate is None:
        if burst is not None:
            raise ValueError(f"burst is {burst}, and without messages_per_second there is nothing that it could limit")
        return Limits(most, None, 0.0)
    if not isinstance(rate, int | float) or isinstance(rate, bool):
        raise TypeError(f"messages_per_second is a number, or None for no limit, and here it is {rate!r}")
    if not 0 < rate < math.inf:
        raise ValueError(f"messages_per_second is {rate}, and has to be more than 0. For no limit give None")
    return Limits(most, rate, float(burst or max(1.0, rate * _BURST_SECONDS)))
