"""Prompts that begin alike: what is cached of a sequence that has ended serves the next one, exactly.

An ended sequence is kept, found by hashes of its tokens, a page of them at a time and chained. A new one forks what
they have in common: pages are shared, and positions that lag keep lagging. When pages are short the oldest one goes,
when states are the one that lags most.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.row_ports import PAGE


@dataclass(frozen=True)
class Kept:
    """An ended sequence and the tokens that entered."""

    sequence: Sequence
    ids: np.ndarray


class Prefixes:
    """Ended sequences by what they begin with.

    Attributes:
        most: how many are kept; 0: none.
    """

    def __init__(self, most: int, close: Callable[[Sequence], None]) -> None:
        """`close` gives back what a sequence holds."""
        self.most, self._close = most, close
        self._kept: OrderedDict[int, tuple[Kept, list[bytes]]] = OrderedDict()
        self._by_hash: dict[bytes, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, ids: np.ndarray, kind: Hashable) -> tuple[Sequence, int] | None:
        """The sequence that shares most with `ids`, and how many tokens; whole pages, and never the last token.

        Args:
            kind: what else has to be the same (limit, threshold, ...).
        """
        for key in reversed(_hashes(ids[:-1], kind)):
            number = self._by_hash.get(key)
            if number is not None:
                self._kept.move_to_end(number)
                kept = self._kept[number][0]
                most = min(len(kept.ids), len(ids) - 1)
                differ = np.flatnonzero(kept.ids[:most] != ids[:most])
                return kept.sequence, int(differ[0]) if differ.size else most
        return None

    def keep(self, sequence: Sequence, ids: np.ndarray, kind: Hashable) -> bool:
        """Keep an ended sequence whose tokens are `ids`; whether it was (else it is the caller's to close)."""
        keys = _hashes(ids, kind)
        if not self.most or not keys or self._by_hash.get(keys[-1]) is not None:
            return False
        while len(self._kept) >= self.most:
            self.drop()
        self._number += 1
        self._kept[self._number] = Kept(sequence, ids), keys
        for key in keys:
            self._by_hash[key] = self._number
        return True

    def drop(self) -> bool:
        """Close the one that was used longest ago; whether there was one."""
        if not self._kept:
            return False
        self._drop(next(iter(self._kept)))
        return True

    def drop_lagging(self, more_than: int, but: Sequence | None = None) -> bool:
        """Close the one with the most states, where it has more than so many; whether one had.

        Args:
            but: is not to be closed.
        """
        states = {
            number: len(kept.sequence.lines)
            for number, (kept, _) in self._kept.items()
            if kept.sequence is not but and len(kept.sequence.lines) > more_than
        }
        if not states:
            return False
        self._drop(max(states, key=states.__getitem__))  # of some with as many the oldest
        return True

    def _drop(self, number: int) -> None:
        kept, keys = self._kept.pop(number)
        for key in keys:
            if self._by_hash.get(key) == number:
                del self._by_hash[key]
        self._close(kept.sequence)

    def clear(self) -> None:
        while self.drop():
            pass


def _hashes(ids: np.ndarray, kind: Hashable) -> list[bytes]:
    """Of the first page of tokens, the first two, and so on."""
    chain, keys = hashlib.sha256(repr(kind).encode()), []
    for end in range(PAGE, len(ids) + 1, PAGE):
        chain.update(ids[end - PAGE : end].tobytes())
        keys.append(chain.digest())
    return keys
