"""A batch of sequences on the row graphs: the cache of `Model.forward`, whose depths are filled as they are needed."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from mythos_runtime.batch import Chunk as Tokens
from mythos_runtime.cache import empty_past
from mythos_runtime.dense import no_memory
from mythos_runtime.engine import sequence as sequences
from mythos_runtime.engine.chunks import Chunk, Leaving
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.interface import RowsCache
from mythos_runtime.engine.memory import Room, position_bytes, state_bytes
from mythos_runtime.engine.pages import PagedCache, Table
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.engine.speculation import Speculate, Speculation
from mythos_runtime.guards import check_numbers
from mythos_runtime.lines import pack, unpack
from mythos_runtime.spec import LoopSpec


@dataclass
class Pool:
    """A core and what of its memory is spoken for, so that nobody runs out of pages.

    Threads that have caches of their own take turns at it: whoever touches the core does so inside `alone`.

    Attributes:
        claimed: by all caches, and by generations on their way.
    """

    core: Core
    claimed: Room = field(default_factory=Room)
    _turn: threading.RLock = field(default_factory=threading.RLock)
    _learnt: dict[Speculate, Speculation] = field(default_factory=dict)
    _gone: deque[tuple[Room, list[sequences.Sequence]]] = field(default_factory=deque)

    def claim(self, batch: int, positions: int, loops: int, policy: Policy = "lazy") -> Room:
        """Room for so many sequences. Give it back with `leave`.

        Raises:
            CapacityError: the machine does not give the memory.
        """
        core, most_loops = self.core, max(loops, 1)
        room = Room.of(batch, positions, most_loops, core.most_states(policy, core.graphs.most_rows))
        with self.alone():
            try:
                core.reserve(self.claimed + room)
            except (MemoryError, ValueError) as error:
                spec = core.graphs.spec
                size = batch * positions * position_bytes(spec, most_loops) + room.lines * state_bytes(spec)
                raise no_memory(batch, positions, loops, size, error) from error
            self.claimed += room
        return room

    def leave(self, room: Room, held: list[sequences.Sequence]) -> None:
        """Somebody needs neither the room nor the sequences any more. For any thread, at any moment."""
        self._gone.append((room, held))

    def speculation(self, speculate: Speculate) -> Speculation | None:
        """What chooses drafts; the same for all generations, since it learns."""
        if speculate == "off":
            return None
        if speculate not in self._learnt:
            loops = self.core.graphs.spec.trained_loops
            self._learnt[speculate] = Speculation(loops, None if speculate == "auto" else speculate)
        return self._learnt[speculate]

    def _sweep(self) -> None:
        while self._gone:
            room, held = self._gone.popleft()
            for sequence in held:
                self.core.close(sequence)
            self.claimed -= room

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is at the core meanwhile."""
        with self._turn:
            self._sweep()
            yield


class RowCache(RowsCache):
    """See `RowsCache`.

    Attributes:
        pool: whose memory it is in.
    """

    def __init__(
        self,
        pool: Pool,
        batch: int,
        capacity: int,
        spec: LoopSpec,
        max_loops: int | None = None,
        policy: Policy = "lazy",
    ) -> None:
        super().__init__(batch, capacity, spec, max_loops, policy)
        self.pool = pool
        room = pool.claim(int(batch), self.capacity, self.max_loops, policy)
        with pool.alone():
            self._sequences = [pool.core.open(self.max_loops, 0.0, policy) for _ in range(int(batch))]
        weakref.finalize(self, pool.leave, room, self._sequences)

    @property
    def nbytes(self) -> int:
        """Of the pages that this cache's rows hold; shared ones count for each."""
        core, total = self.pool.core, 0
        for sequence in self._sequences:
            if core.around is not None:
                total += len(sequence.around) * core.around.page_bytes
            total += sum(map(len, sequence.loop)) * core.loop.page_bytes
        return total

    def forward(
        self, tokens: Tokens, threshold: float, state_seed: int, initial: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, int]:
        self.check_room(tokens.counts)
        core, shape = self.pool.core, tokens.ids.shape
        logits = np.zeros((*shape, self.spec.vocab_size), np.float32)
        depth = np.zeros(shape, np.int32)
        places = [np.flatnonzero(valid) for valid in tokens.valid]
        before, at = self.lengths.copy(), np.zeros(self.batch, np.int64)
        with self.pool.alone():
            try:
                while (waiting := np.flatnonzero(at < tokens.counts)).size:
                    waiting = waiting[: core.graphs.most_rows]
                    most = core.graphs.most_rows // len(waiting)
                    chunks: list[Chunk] = []
                    cuts: list[np.ndarray] = []
                    for row in waiting:
                        cut = places[row][at[row] : at[row] + most]
                        sequence = self._sequences[row]
                        sequence.threshold, sequence.state_seed = threshold, state_seed
                        own = None if initial is None else initial[row, cut]
                        chunks.append(Chunk(sequence, tokens.ids[row, cut], initial=own))
                        cuts.append(cut)
                        at[row] += len(cut)
                    core.enter(chunks)
                    core.run([chunk.sequence for chunk in chunks])
                    answers = core.leave([Leaving(chunk.sequence, every=True) for chunk in chunks])
                    for row, cut, answer, chunk in zip(waiting, cuts, answers, chunks, strict=True):
                        logits[row, cut], depth[row, cut] = answer.logits, answer.depth
                        core.repay(chunk.sequence)
                    core.run([chunk.sequence for chunk in chunks])
                check_numbers(logits, tokens.valid, "row graphs")
            except BaseException:
                for index, length in enumerate(before.tolist()):
                    self._cut(index, length)
                raise
        self.lengths += tokens.counts
        # What lags behind a token runs with it, no deeper.
        return logits, depth, self.max_loops if self.policy == "full" else int(depth.max())

    def fork(self, rows: Sequence[int] | np.ndarray | None = None) -> RowCache:
        chosen = self._rows(rows)
        twin = RowCache(self.pool, len(chosen), self.capacity, self.spec, self.max_loops, self.policy)
        with self.pool.alone():
            core = self.pool.core
            for index, row in enumerate(chosen.tolist()):
                forked = core.fork(self._sequences[row])  # may raise: the twin is whole then
                core.close(twin._sequences[index])
                twin._sequences[index] = forked
        twin.lengths[:] = self.lengths[chosen]
        return twin

    def read(self) -> dict[str, np.ndarray]:
        """As `Cache.read`; what lags is run first."""
        entries = empty_past(self.spec, self.batch, int(self.lengths.max()), self.max_loops)
        with self.pool.alone():
            core = self.pool.core
            for sequence in self._sequences:
                core.repay(sequence, at_least=1)
            core.run(self._sequences)
            for row, sequence in enumerate(self._sequences):
                for group, table, part, parts in self._tables(sequence, entries, row):
                    held = group.read(table, sequence.length)
                    part[:, : sequence.length] = unpack(held, parts) if parts else held
        return entries

    def write(self, entries: Mapping[str, np.ndarray], lengths: Sequence[int] | np.ndarray) -> None:
        counts = self._entries(entries, lengths)
        self.reset()
        with self.pool.alone():
            for row, sequence in enumerate(self._sequences):
                length = int(counts[row])
                if not length:
                    continue
                for group, table, part, parts in self._tables(sequence, entries, row):
                    group.extend(table, 0, length - 1)
                    group.write(table, pack(part[:, :length], parts) if parts else part[:, :length])
                sequence.length = sequence.answered = length
                sequence.filled = [length] * sequence.limit
        self.lengths[:] = counts

    def _tables(
        self, sequence: sequences.Sequence, entries: Mapping[str, np.ndarray], row: int
    ) -> Iterator[tuple[PagedCache, Table, np.ndarray, tuple[int, ...]]]:
        """A sequence's tables, what belongs there of entries [..., batch, n, width]: [slots, n, width], and the parts
        that pages hold rounded to int8, where they do."""
        core = self.pool.core
        for group in self.spec.caches:
            mine = entries[group.name][..., row, :, :]
            if not group.per_loop:
                assert core.around is not None
                yield core.around, sequence.around, mine, group.rounded
                continue
            for depth, table in enumerate(sequence.loop):
                yield core.loop, table, mine[depth][None] if group.slots == 1 else mine[depth], group.rounded

    def _cut(self, row: int, length: int) -> None:
        with self.pool.alone():
            self.pool.core.truncate(self._sequences[row], length)
