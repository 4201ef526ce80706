"""From what a caller passes to what the graph takes: token ids, which of them are real, and their positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mythos_runtime.errors import RequestError

PADDING = -1  # the position of a padding token


@dataclass(frozen=True)
class Chunk:
    """New tokens of a batch: ids int64 [B, T] (0 where padded) and valid bool [B, T] (False marks padding)."""

    ids: np.ndarray
    valid: np.ndarray

    @cached_property
    def counts(self) -> np.ndarray:
        """Real tokens per row, int64 [B]."""
        counts: np.ndarray = self.valid.sum(axis=1, dtype=np.int64)
        return counts

    @cached_property
    def full(self) -> bool:
        """Whether nothing is padding."""
        return bool(self.valid.all())

    def positions(self, past_lengths: np.ndarray) -> np.ndarray:
        """int64 [B, T]: a row's real tokens count on from its past; padding is -1."""
        if self.full:
            return past_lengths[:, None] + np.arange(self.valid.shape[1])
        place = np.cumsum(self.valid, axis=1, dtype=np.int64) - 1 + past_lengths[:, None]
        return np.where(self.valid, place, PADDING)


def make_chunk(ids: Any, vocab_size: int, lengths: Any = None, valid: Any = None) -> Chunk:
    """Check a batch of tokens.

    Args:
        ids: integers [B, T], or [T] for a batch of one.
        lengths: integers [B]; row b's tokens from lengths[b] on are padding.
        valid: booleans [B, T]; False marks padding, anywhere in a row. Give one of the two, or neither.

    Raises:
        RequestError: with what was found and what is expected.
    """
    tokens = _integers(ids, "ids")
    if tokens.ndim == 1:
        tokens = tokens[None]
    if tokens.ndim != 2 or not tokens.size:
        raise RequestError(f"ids should be a non-empty array [batch, tokens], found shape {list(np.shape(ids))}")
    wrong = (tokens < 0) | (tokens >= vocab_size)
    if lengths is None and valid is None:
        real = np.ones(tokens.shape, bool)
    else:
        real = _validity(tokens.shape, lengths, valid)
        if not real.any():
            raise RequestError("every token is padding, so there is nothing to compute")
        wrong &= real
        tokens = np.where(real, tokens, 0)  # whatever stands in the padding must not index the embedding
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        raise RequestError(
            f"ids[{row}, {column}] is {tokens[row, column]}, but this model's vocabulary has the ids 0 to "
            f"{vocab_size - 1}; is this the right tokenizer?"
        )
    return Chunk(np.ascontiguousarray(tokens, np.int64), real)


def pad_rows(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of different lengths as ids int64 [B, T], padded on the right, and lengths int64 [B]."""
    lengths = np.array([len(row) for row in rows], np.int64)
    ids = np.zeros((len(rows), int(lengths.max())), np.int64)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
    return ids, lengths


def split_prompts(ids: Any, vocab_size: int) -> list[np.ndarray]:
    """Prompts as one int64 array per row, from an array [B, T] or [T], a list of ids, or a list of lists.

    Raises:
        RequestError: an id is not an integer of the vocabulary, or a prompt is empty.
    """
    if not isinstance(ids, np.ndarray):
        if not isinstance(ids, Sequence) or isinstance(ids, (str, bytes)):
            raise RequestError(f"ids should be token ids, one list per prompt, found {type(ids).__name__}")
        ragged = len(ids) > 0 and all(isinstance(row, (Sequence, np.ndarray)) for row in ids)
        rows = [_integers(row, f"ids[{index}]") for index, row in enumerate(ids)] if ragged else [_integers(ids, "ids")]
    else:
        array = _integers(ids, "ids")
        rows = list(array) if array.ndim == 2 else [array]
    if not rows:
        raise RequestError("there is no prompt; ids should hold at least one token")
    for index, row in enumerate(rows):
        if row.ndim != 1 or not row.size:
            raise RequestError(f"prompt {index} should be a non-empty list of ids, found shape {list(row.shape)}")
        make_chunk(row, vocab_size)
    return [row.astype(np.int64) for row in rows]


def integer(value: Any, name: str, least: int, most: int | None = None) -> int:
    """A single integer in a range, numpy's included (RequestError)."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        upper = "" if most is None else f" and at most {most}"
        raise RequestError(f"{name} should be an integer of at least {least}{upper}, found {value!r}")
    return int(value)


def number(value: Any, name: str) -> float:
    """A single finite number (RequestError)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise RequestError(f"{name} should be a number, found {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise RequestError(f"{name} should be a finite number, found {value!r}")
    return result


def _integers(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        raise RequestError(f"{name} has rows of different lengths; pad them and pass lengths=[...]") from None
    if array.size and array.dtype.kind not in "iu":
        raise RequestError(f"{name} should hold integers, found {_words(array.dtype)}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise RequestError(f"{name} should hold ids of the vocabulary, found {array.max()}")
    return array


def _words(dtype: np.dtype[Any]) -> str:
    """What an array holds, for people."""
    kinds = {"U": "text", "S": "bytes", "O": "Python objects", "b": "booleans", "c": "complex numbers"}
    return kinds.get(dtype.kind, dtype.name)


def _validity(shape: tuple[int, ...], lengths: Any, valid: Any) -> np.ndarray:
    if lengths is not None and valid is not None:
        raise RequestError("give lengths or valid, not both")
    if lengths is not None:
        counts = _integers(lengths, "lengths")
        if counts.shape != shape[:1] or (counts < 0).any() or (counts > shape[1]).any():
            raise RequestError(f"lengths should be {shape[0]} integers from 0 to {shape[1]}, found {lengths!r}")
        return np.asarray(np.arange(shape[1]) < counts[:, None])
    real = np.asarray(valid)
    if real.dtype != bool or real.shape != shape:
        raise RequestError(f"valid should be booleans {list(shape)}, found {_words(real.dtype)} {list(real.shape)}")
    return real
