"""What no call may pass over in silence: results that are no numbers, and a cache that two threads use at once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from mythos_runtime.errors import RequestError, ResultError

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M")


def one_at_a_time(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """A method with the keyword argument `cache`, which refuses one that another call is at work with (RequestError):
    two orders of the same tokens would both look right."""

    @functools.wraps(method)
    def guarded(self: M, *args: P.args, **kwargs: P.kwargs) -> R:
        cache = kwargs.get("cache")
        if cache is None or not hasattr(cache, "__dict__"):
            return method(self, *args, **kwargs)
        lock: threading.Lock = cache.__dict__.setdefault("_in_use", threading.Lock())
        if not lock.acquire(blocking=False):
            raise RequestError(
                "the cache is in use by another call: a cache is for one thread at a time; give every thread its own "
                "(new_cache, or fork)"
            )
        try:
            return method(self, *args, **kwargs)
        finally:
            lock.release()

    return guarded  # type: ignore[return-value]  # a method, called with its object first


def check_numbers(logits: np.ndarray, valid: np.ndarray, engine: str) -> None:
    """ResultError where the logits [B, T, V] of a real token (valid, bool [B, T]) hold NaN: nothing is to be made of
    them, nor of what was cached beside them."""
    if logits.size and np.isnan(logits.min()):  # a minimum passes a NaN on, and takes no memory
        broken = np.isnan(logits).any(-1) & valid
        if broken.any():
            row, token = np.argwhere(broken)[0]
            raise ResultError(
                f"the engine's logits hold NaN at row {row}, token {token}: its results are broken ({engine})"
            )
