"""How an engine's memory is dealt: to pages of the caches, and to the states of positions that lag."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mythos_runtime.engine.pages import PagedCache
from mythos_runtime.engine.states import States
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.row_ports import MOST_LOOPS, PAGE
from mythos_runtime.spec import CacheGroup, LoopSpec


@dataclass(frozen=True)
class Memory:
    """What an engine over a model allocates. The system gives it as it is touched.

    Attributes:
        around, loop: the caches; around is None where the model has no layers there.
        states: of every position that the caches hold, should all of them lag.
    """

    around: PagedCache | None
    loop: PagedCache
    states: States

    @classmethod
    def of(cls, spec: LoopSpec, size: int, loops: int) -> Memory:
        """Room for as many positions, each at every depth, as `size` bytes hold.

        Args:
            loops: the most that a request may ask for.

        Raises:
            RequestError: the row graphs do not take so many loops.
            CapacityError: not even one page fits.
        """
        if not 1 <= loops <= MOST_LOOPS:
            raise RequestError(f"an engine runs 1 to {MOST_LOOPS} loops, found {loops}")
        groups = {group.per_loop: group for group in spec.caches}
        inside, outside = groups[True], groups.get(False)
        line = sum(array[0].nbytes for array in States(spec, 1).arrays.values())
        position = _bytes(inside) * loops + (_bytes(outside) if outside else 0) + line
        pages = size // (position * PAGE)
        if pages < 1:
            raise CapacityError(
                f"{size} bytes hold no page of {PAGE} positions, which take {position * PAGE} at {loops} loops"
            )
        around = None if outside is None else _cache(outside, pages)
        return cls(around, _cache(inside, pages * loops), States(spec, pages * PAGE))

    @property
    def positions(self) -> int:
        """How many it holds at every depth."""
        return self.states.lines

    @property
    def bytes(self) -> int:
        """All of it, touched or not."""
        caches = [cache.memory.nbytes for cache in (self.around, self.loop) if cache is not None]
        return sum(caches) + sum(array.nbytes for array in self.states.arrays.values())


def _cache(group: CacheGroup, pages: int) -> PagedCache:
    return PagedCache(group.slots, pages, group.width, numpy_dtype(group.dtype))


def _bytes(group: CacheGroup) -> int:
    """Of one position's lines, at one depth."""
    return int(np.dtype(numpy_dtype(group.dtype)).itemsize) * group.slots * group.width
