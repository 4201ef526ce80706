"""Keys: who has none is not served. Compared in constant time, each of them."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from mythos_runtime.errors import RequestError
from mythos_runtime.server.refusals import Refusal

_bearer = HTTPBearer(auto_error=False, description="A key of the server's, where it asks for one.")
_Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def key_check(keys: tuple[str, ...]) -> Callable[[HTTPAuthorizationCredentials | None], None]:
    """A dependency that raises Refusal 401 where the request brings none of them."""
    known = [key.encode() for key in keys]

    def check(given: _Given) -> None:
        key = b"" if given is None else given.credentials.encode("latin-1", "replace")  # as it came
        if sum(hmac.compare_digest(key, each) for each in known) == 0:  # all of them, whichever it is
            raise Refusal(401, "a key is needed, and this is none: Authorization: Bearer KEY",
                          headers={"WWW-Authenticate": "Bearer"})  # fmt: skip

    return check


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and lines that begin with # are none (RequestError)."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RequestError(f"the keys in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"the keys in {path} are not UTF-8") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.strip().startswith("#"))
    if not keys:
        raise RequestError(f"{path} holds no key; expected one a line")
    return keys
