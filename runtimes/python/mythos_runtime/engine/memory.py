"""How an engine's memory is dealt: to pages of the caches, and to the states of positions that lag.

A state is much larger than what a position caches at one depth, and only positions that have not run every depth have
one. So states are a pool of their own, for as many positions as may lag at a time; the rest of the memory is pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mythos_runtime.engine.pages import HOST, PagedCache, Place
from mythos_runtime.engine.states import States
from mythos_runtime.errors import CapacityError, RequestError
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.row_ports import MOST_LOOPS, PAGE
from mythos_runtime.spec import CacheGroup, LoopSpec


@dataclass(frozen=True)
class Room:
    """Pages around the loop and inside, and lines of state."""

    around: int = 0
    loop: int = 0
    lines: int = 0

    @classmethod
    def of(cls, sequences: int, positions: int, loops: int, lagging: int | None = None) -> Room:
        """What so many sequences of so many positions, each at every depth, may need.

        Args:
            lagging: the most positions of a sequence that have a state at a time; None: all of them.
        """
        blocks = sequences * -(-positions // PAGE)
        states = positions if lagging is None else min(positions, lagging)
        return cls(blocks, blocks * loops, sequences * states)

    def __add__(self, other: Room) -> Room:
        return Room(self.around + other.around, self.loop + other.loop, self.lines + other.lines)

    def __sub__(self, other: Room) -> Room:
        return Room(self.around - other.around, self.loop - other.loop, self.lines - other.lines)


@dataclass(frozen=True)
class Memory:
    """What an engine over a model allocates. The system gives it as it is touched.

    Attributes:
        around, loop: the caches; around is None where the model has no layers there.
        states: of positions that lag.
    """

    around: PagedCache | None
    loop: PagedCache
    states: States

    @classmethod
    def with_room(
        cls, spec: LoopSpec, room: Room, place: Place = HOST, states: Callable[[LoopSpec, int], States] = States
    ) -> Memory:
        """`place`: of the pages. `states`: makes the lines of state."""
        groups = {group.per_loop: group for group in spec.caches}
        around = None if False not in groups else _cache(groups[False], room.around, place)
        return cls(around, _cache(groups[True], room.loop, place), states(spec, room.lines))

    @staticmethod
    def room(spec: LoopSpec, size: int, loops: int, lagging: int) -> Room:
        """For as many positions, each at every depth, as `size` bytes hold beside the states of those that lag.

        Args:
            loops: the most that a request may ask for.
            lagging: the most positions, of all sequences together, that have a state at a time.

        Raises:
            RequestError: the row graphs do not take so many loops.
            CapacityError: not even one page fits.
        """
        if not 1 <= loops <= MOST_LOOPS:
            raise RequestError(f"an engine runs 1 to {MOST_LOOPS} loops, found {loops}")
        cached, state = PAGE * position_bytes(spec, loops), state_bytes(spec)
        pages = size // (cached + PAGE * state)
        if pages < 1:
            raise CapacityError(
                f"{size} bytes hold no page of {PAGE} positions, which take {cached + PAGE * state} at {loops} loops"
            )
        if pages * PAGE > lagging:  # more than may lag: the others need no state
            pages = (size - lagging * state) // cached
        return Room(pages, pages * loops, min(pages * PAGE, lagging))

    @classmethod
    def of(cls, spec: LoopSpec, size: int, loops: int, lagging: int) -> Memory:
        """On the host, with `room`, whose errors it raises."""
        return cls.with_room(spec, cls.room(spec, size, loops, lagging))

    def grow(self, room: Room) -> None:
        """Have at least so much. Memory moves: see `PagedCache.grow`."""
        if self.around is not None:
            self.around.grow(room.around)
        self.loop.grow(room.loop)
        self.states.grow(room.lines)

    @property
    def longest(self) -> int:
        """Positions of the longest sequence that there are pages for, at one loop."""
        return PAGE * (self.loop if self.around is None else self.around).pages

    @property
    def bytes(self) -> int:
        """All of it, touched or not."""
        caches = [int(cache.memory.nbytes) for cache in (self.around, self.loop) if cache is not None]
        return sum(caches) + self.states.bytes


def position_bytes(spec: LoopSpec, loops: int) -> int:
    """Of a position's cache lines, at so many depths."""
    return sum(_bytes(group) * (loops if group.per_loop else 1) for group in spec.caches)


def state_bytes(spec: LoopSpec) -> int:
    """Of the state of a position that lags."""
    return States(spec, 1).bytes


def _cache(group: CacheGroup, pages: int, place: Place) -> PagedCache:
    return PagedCache(group.slots, pages, group.page_width, numpy_dtype(group.page_dtype), place)


def _bytes(group: CacheGroup) -> int:
    """Of one position's lines, at one depth."""
    return int(np.dtype(numpy_dtype(group.page_dtype)).itemsize) * group.slots * group.page_width
