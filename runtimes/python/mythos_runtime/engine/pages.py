"""The paged cache: memory in pages of 32 positions, tables that name pages, and who holds which.

A table holds page numbers in the order of positions: one for a sequence's layers around the loop, one for each of its
loop depths. A page may stand in several tables (a common prefix, a fork); whoever writes to it then gets a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from mythos_runtime.row_ports import PAGE


class Place(Protocol):
    """Where pages lie. What is there is indexed, assigned to and measured as numpy arrays are."""

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """MemoryError where there is no room."""
        ...

    def read(self, there: Any) -> np.ndarray:
        """What lies there, on the host."""
        ...

    def write(self, array: np.ndarray) -> Any:
        """An array as what can be assigned there."""
        ...


class Host:
    """numpy arrays."""

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.zeros(shape, dtype)

    def read(self, there: np.ndarray) -> np.ndarray:
        return there

    def write(self, array: np.ndarray) -> np.ndarray:
        return array


HOST = Host()


class OutOfPages(Exception):
    """No page is free. The engine makes room, or a request waits; it does not reach a user."""


class OutOfStates(OutOfPages):
    """No state is free for a position that enters: others have to run what they lag, which frees theirs."""


class Table:
    """Page numbers of one sequence at one depth, int64; an array, since a call of a graph copies it.

    Attributes:
        count: of them.
    """

    def __init__(self, pages: np.ndarray | None = None) -> None:
        self._pages = np.empty(4, np.int64) if pages is None else pages
        self.count = 0 if pages is None else len(pages)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, block: int) -> int:
        return int(self._pages[block])

    def __setitem__(self, block: int, page: int) -> None:
        self._pages[block] = page

    @property
    def pages(self) -> np.ndarray:
        """All of them, a view."""
        return self._pages[: self.count]

    def append(self, page: int) -> None:
        if self.count == len(self._pages):
            self._pages = np.concatenate([self._pages, np.empty(max(self.count, 4), np.int64)])
        self._pages[self.count] = page
        self.count += 1

    def cut(self, blocks: int) -> list[int]:
        """Keep the first `blocks`; the others."""
        gone: list[int] = self._pages[blocks : self.count].tolist()
        self.count = min(self.count, blocks)
        return gone


def distinct(tables: Iterable[Table]) -> int:
    """Pages that are in any of a cache's tables."""
    pages = [table.pages for table in tables]
    return len(np.unique(np.concatenate(pages))) if pages else 0


class PagedCache:
    """Pages of one cache group: all slots of a page belong to the same positions.

    Attributes:
        memory: [slots, pages, PAGE, width]; memory[slot] is what a layer's graph input is bound to.
        freed: called with a page that nobody holds any more (tests fill it with NaN).
        peak: the most pages that were held at a time.
    """

    def __init__(self, slots: int, pages: int, width: int, dtype: np.dtype, place: Place = HOST) -> None:
        self._place, self._dtype = place, dtype
        self.memory = place.zeros((slots, pages, PAGE, width), dtype)
        self.freed: Callable[[int], None] = lambda page: None
        self.peak = 0
        self._free = list(range(pages - 1, -1, -1))
        self._holders = [0] * pages

    @property
    def pages(self) -> int:
        return len(self._holders)

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def page_bytes(self) -> int:
        """Of a page, all slots."""
        return int(self.memory.nbytes) // max(self.pages, 1)

    @property
    def held(self) -> int:
        """Pages that somebody holds."""
        return self.pages - self.free

    def grow(self, pages: int) -> None:
        """Have at least so many pages. Memory moves: whoever has bound it has to bind it again."""
        more = pages - self.pages
        if more <= 0:
            return
        used = self.pages
        memory = self._place.zeros((self.memory.shape[0], pages, *self.memory.shape[2:]), self._dtype)
        held = np.flatnonzero(self._holders)  # the others may never have been touched
        memory[:, held] = self.memory[:, held]
        self.memory = memory
        self._free[:0] = range(pages - 1, used - 1, -1)
        self._holders += [0] * more

    def extend(self, table: Table, first: int, last: int) -> None:
        """Make positions first..last of a table writable, where all before `first` have pages.

        Raises:
            OutOfPages: nothing was changed.
        """
        block = first // PAGE
        if block == last // PAGE < table.count and self._holders[table[block]] == 1:
            return  # a token's usual case, many times a tick
        shared = [block for block in range(block, len(table)) if self._holders[table[block]] > 1]
        new = last // PAGE + 1 - len(table)
        if len(shared) + max(new, 0) > self.free:
            raise OutOfPages
        for block in shared:
            page, copy = table[block], self._take()
            self.memory[:, copy] = self.memory[:, page]
            table[block] = copy
            self.give(page)
        for _ in range(new):
            table.append(self._take())

    def extend_own(self, table: Table, first: int, last: int) -> bool:
        """As `extend`, but without copying a page that another table holds too; whether that and the free pages allow
        it. Nothing was changed where they do not."""
        block = first // PAGE
        if block < table.count:
            if self._holders[table[block]] > 1:
                return False
            if last // PAGE < table.count:
                return True
        try:
            self.extend(table, first, last)
        except OutOfPages:
            return False
        return True

    def hold(self, page: int) -> None:
        """One holder more."""
        self._holders[page] += 1

    def give(self, page: int) -> None:
        """One holder less; the last one frees the page."""
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)
            self.freed(page)

    def fork(self, table: Table, length: int) -> Table:
        """A second table of the entries of the first `length` positions."""
        pages = table.pages[: -(-length // PAGE)].copy()
        for page in pages:
            self.hold(page)
        return Table(pages)

    def truncate(self, table: Table, length: int) -> None:
        """Give the pages behind the first `length` positions back."""
        keep = -(-length // PAGE)
        if keep < len(table):
            for page in table.cut(keep):
                self.give(page)

    def read(self, table: Table, length: int) -> np.ndarray:
        """The first entries of a table, [slots, length, width]."""
        pages = self._place.read(self.memory[:, table.pages[: -(-length // PAGE)]])
        entries: np.ndarray = pages.reshape(pages.shape[0], -1, pages.shape[-1])[:, :length]
        return entries

    def write(self, table: Table, entries: np.ndarray) -> None:
        """Set the first entries of a table, [slots, n, width]."""
        block, offset = np.divmod(np.arange(entries.shape[1]), PAGE)
        self.memory[:, table.pages[block], offset] = self._place.write(entries)

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        self.peak = max(self.peak, self.held)
        return page
