"""A batch of sequences whose row graphs the C++ runtime runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import byref, c_size_t, c_void_p
from typing import TYPE_CHECKING

import numpy as np

from mythos_runtime.batch import Chunk as Tokens
from mythos_runtime.cache import empty_past
from mythos_runtime.engine.interface import RowsCache
from mythos_runtime.engine.native.library import check, free_with
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.lines import pack, unpack
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.spec import CacheGroup

if TYPE_CHECKING:
    from mythos_runtime.engine.native.model import NativeModel

_AROUND = -1  # the loop, to the C interface


class NativeCache(RowsCache):
    """See `RowsCache`; `engine.row_cache.RowCache` gives the same.

    Attributes:
        owner: whose memory it is in.
    """

    def __init__(
        self, owner: NativeModel, batch: int, capacity: int, max_loops: int | None = None, policy: Policy = "lazy"
    ) -> None:
        super().__init__(batch, capacity, owner.spec, max_loops, policy)
        handle, size = c_void_p(), (int(batch), self.capacity, self.max_loops)
        made = owner.library.mythos_cache_new(owner.handle, *size, policy.encode(), byref(handle))
        check(owner.library, made)
        self._hold(owner, handle)

    def _hold(self, owner: NativeModel, handle: c_void_p) -> None:
        self.owner, self._handle, self._library = owner, handle, owner.library
        free_with(self, owner.library.mythos_cache_free, handle)

    @property
    def nbytes(self) -> int:
        """Of the pages that this cache's rows hold; shared ones count for each."""
        found = c_size_t()
        check(self._library, self._library.mythos_cache_bytes(self._handle, byref(found)))
        return found.value

    def forward(
        self, tokens: Tokens, threshold: float, state_seed: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        self.check_room(tokens.counts)
        found = self.owner.forward(tokens, threshold, state_seed, initial, cache=self._handle)
        self.lengths += tokens.counts
        return found

    def fork(self, rows: Sequence[int] | np.ndarray | None = None) -> NativeCache:
        chosen, handle = self._rows(rows).astype(np.int64), c_void_p()
        forked = self._library.mythos_cache_fork(self._handle, chosen.ctypes.data, len(chosen), byref(handle))
        check(self._library, forked)
        twin = NativeCache.__new__(NativeCache)
        RowsCache.__init__(twin, len(chosen), self.capacity, self.spec, self.max_loops, self.policy)
        twin._hold(self.owner, handle)
        twin.lengths[:] = self.lengths[chosen]
        return twin

    def read(self) -> dict[str, np.ndarray]:
        """As `Cache.read`; what lags is run first."""
        entries = empty_past(self.spec, self.batch, int(self.lengths.max()), self.max_loops)
        for group in self.spec.caches:
            for row, length in enumerate(self.lengths.tolist()):
                mine = entries[group.name][..., row, :length, :]
                for loop in range(self.max_loops) if group.per_loop else (_AROUND,):
                    part = mine[loop] if group.per_loop else mine
                    held = self._lines(row, loop, group, length)
                    lines = unpack(held, group.rounded) if group.rounded else held
                    part[...] = lines[0] if part.ndim == 2 else lines
        return entries

    def _lines(self, row: int, loop: int, group: CacheGroup, length: int) -> np.ndarray:
        """[slots, length, line]."""
        lines = np.empty((group.slots, length, group.page_width), numpy_dtype(group.page_dtype))
        found = c_size_t()
        read = self._library.mythos_cache_read(self._handle, row, loop, lines.ctypes.data, lines.nbytes, byref(found))
        check(self._library, read)
        assert found.value == lines.nbytes
        return lines

    def write(self, entries: Mapping[str, np.ndarray], lengths: Sequence[int] | np.ndarray) -> None:
        counts = self._entries(entries, lengths)
        for row, length in enumerate(counts.tolist()):
            given = {False: b"", True: b""}  # by whether they are per loop
            for group in self.spec.caches:
                mine = np.asarray(entries[group.name])[..., row, :length, :]
                mine = mine[: self.max_loops] if group.per_loop else mine
                lines = pack(mine, group.rounded) if group.rounded else mine.astype(numpy_dtype(group.page_dtype))
                given[group.per_loop] = lines.tobytes()
            sizes = [(given[per_loop], len(given[per_loop])) for per_loop in (False, True)]
            check(self._library, self._library.mythos_cache_write(self._handle, row, length, *sizes[0], *sizes[1]))
            self.lengths[row] = length

    def _cut(self, row: int, length: int) -> None:
        lengths = self.lengths.copy()
        lengths[row] = length
        check(self._library, self._library.mythos_cache_truncate(self._handle, lengths.ctypes.data))
