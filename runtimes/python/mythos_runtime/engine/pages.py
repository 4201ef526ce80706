"""The paged cache: memory in pages of 32 positions, tables that name pages, and who holds which.

A table is a list of page numbers in the order of positions: one for a sequence's layers around the loop, one for each
of its loop depths. A page may stand in several tables (a common prefix, a fork); whoever writes to it then gets a copy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mythos_runtime.row_ports import PAGE


class OutOfPages(Exception):
    """No page is free. The engine makes room, or a request waits; it does not reach a user."""


class PagedCache:
    """Pages of one cache group: all slots of a page belong to the same positions.

    Attributes:
        memory: [slots, pages, PAGE, width]; memory[slot] is what a layer's graph input is bound to.
        freed: called with a page that nobody holds any more (tests fill it with NaN).
        peak: the most pages that were held at a time.
    """

    def __init__(self, slots: int, pages: int, width: int, dtype: np.dtype) -> None:
        self.memory = np.zeros((slots, pages, PAGE, width), dtype)
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

    def extend(self, table: list[int], first: int, last: int) -> None:
        """Make positions first..last of a table writable, where all before `first` have pages.

        Raises:
            OutOfPages: nothing was changed.
        """
        shared = [block for block in range(first // PAGE, len(table)) if self._holders[table[block]] > 1]
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

    def hold(self, page: int) -> None:
        """One holder more."""
        self._holders[page] += 1

    def give(self, page: int) -> None:
        """One holder less; the last one frees the page."""
        self._holders[page] -= 1
        if self._holders[page] == 0:
            self._free.append(page)
            self.freed(page)

    def fork(self, table: list[int]) -> list[int]:
        """A second table of the same entries."""
        for page in table:
            self.hold(page)
        return list(table)

    def truncate(self, table: list[int], length: int) -> None:
        """Give the pages behind the first `length` positions back."""
        keep = -(-length // PAGE)
        for page in table[keep:]:
            self.give(page)
        del table[keep:]

    def _take(self) -> int:
        page = self._free.pop()
        self._holders[page] = 1
        self.peak = max(self.peak, self.pages - self.free)
        return page
