"""Where a client shows a token; whoever takes it from there leaves none behind in the scope."""

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import unquote_plus

from starlette.requests import cookie_parser
from starlette.types import Scope


def _rewrite(scope: Scope, name: bytes, rewrite: Callable[[str], str]) -> None:
    """Put in the place of a header what `rewrite` makes of it; where that is empty, the header goes."""
    headers = []
    for key, value in scope["headers"]:
        if key == name:
            value = rewrite(value.decode("latin-1")).encode("latin-1")
        if key != name or value:
            headers.append((key, value))
    scope["headers"] = headers


def take_from_header(scope: Scope) -> list[str]:
    tokens = []

    def without(value: str) -> str:
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            return value
        tokens.append(token.strip())
        return ""

    _rewrite(scope, b"authorization", without)
    return tokens


def take_from_subprotocols(scope: Scope) -> list[str]:
    tokens, others = [], []
    offered = iter(scope.get("subprotocols") or ())
    for each in offered:
        token = next(offered, None) if each == "bearer" else None
        if token is None:
            others.append(each)
        else:
            tokens.append(token)
    if tokens:
        scope["subprotocols"] = others
        # One header for all that is left of one or several.
        rest = iter([", ".join(others)])
        _rewrite(scope, b"sec-websocket-protocol", lambda _: next(rest, ""))
    return tokens


def take_from_cookie(scope: Scope) -> list[str]:
    tokens = []

    def without(value: str) -> str:
        others = []
        for part in value.split(";"):
            cookie = cookie_parser(part)
            if "token" in cookie:
                tokens.append(cookie["token"])
            else:
                others.append(part)
        return ";".join(others).strip()

    _rewrite(scope, b"cookie", without)
    return tokens


def take_from_query(scope: Scope) -> list[str]:
    tokens, others = [], []
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.decode("latin-1").partition("=")
        # Any letter of the name may be written as %xx, and the app would read it all the same.
        if unquote_plus(name) == "token":
            tokens.append(unquote_plus(value))
        else:
            others.append(part)
    scope["query_string"] = b"&".join(others)
    return tokens


class Place(NamedTuple):
    """A place where a token is shown: what takes it from there, and how that is said to whoever shows none."""

    take: Callable[[Scope], list[str]]
    way: str


PLACES = {
    "header": Place(take_from_header, "in the header `Authorization: Bearer TOKEN`"),
    "subprotocol": Place(take_from_subprotocols, "as the subprotocols `bearer, TOKEN`"),
    "cookie": Place(take_from_cookie, "in the cookie `token`"),
    "query": Place(take_from_query, "in the query as `?token=TOKEN`"),
}
