"""The step of a bundle whose experts are in shards: cut at the experts, which other processes compute.

    route -> the rows and their experts -> the shards; meanwhile the shared experts -> rest

The parts share buffers under the names of their ports, so that nothing is copied between them. What the experts put
out is stored as [R, K, D], each where its row chose it, whenever it came; `rest` sums it in the order of the experts,
and with that a row's bits are those of the step as one graph.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Several
from dataclasses import dataclass, field

import numpy as np

from mythos_runtime.engine.call_inputs import Tables
from mythos_runtime.engine.pages import PagedCache
from mythos_runtime.engine.part import MOST_FRAMES, Frame, Part
from mythos_runtime.engine.sequence import Span
from mythos_runtime.errors import RuntimeBundleError, Unavailable
from mythos_runtime.ort import OrtSession
from mythos_runtime.shards.entry import REST, ROUTE, SHARED, ExpertShards
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.share import Share, shares

_TRUNK = (ROUTE, SHARED, REST)


@dataclass
class _Frames:
    """The parts' frames for a number of rows, and together the step's."""

    whole: Frame
    parts: dict[str, Frame] = field(default_factory=dict)


class ShardedStep:
    """See `part.Part`, in whose place it is.

    Attributes:
        most_loops: of a call.
        shards: that it asks.
    """

    most_loops = 1

    def __init__(
        self,
        entry: ExpertShards,
        open_graph: Callable[[str], OrtSession],
        shards: Shards,
        most_rows: int,
        most_positions: int,
    ) -> None:
        self.shards = shards
        memory: dict[str, np.ndarray] = {}
        self._parts = {
            name: Part(entry.graphs[name], open_graph(name), most_rows, most_positions, memory=memory)
            for name in _TRUNK
            if name in entry.graphs
        }
        self._owners = entry.owners()
        self._firsts = np.array([entry.experts(index).start for index in range(len(entry.counts))])
        self._made: dict[Frame, _Frames] = {}

    def bind(self, cache: PagedCache | None) -> None:
        for part in self._parts.values():
            part.bind(cache)
        self._made.clear()

    def frame(self, spans: Several[Span], rows: int, wanted: int = 0) -> Frame:
        route = self._parts[ROUTE].frame(spans, rows)
        made = self._made.get(route)
        if made is None:
            if len(self._made) >= MOST_FRAMES:
                self._made.clear()
            frames = {name: part.frame(spans, rows) for name, part in self._parts.items()} | {ROUTE: route}
            tensors = {role: tensor for frame in frames.values() for role, tensor in frame.tensors.items()}
            made = self._made[route] = _Frames(Frame(route, tensors, {}), frames)
        return made.whole

    def run(self, frame: Frame, spans: Several[Span], tables: Tables) -> None:
        """As `Part.run`, and

        Raises:
            Unavailable: a shard is lost that rows of these sequences need. Nothing was computed that counts: the
                others' rows may run again.
            BackendFailed: a shard that is there could not compute its part.
        """
        frames = self._made[frame.binding].parts
        self._parts[ROUTE].run(frames[ROUTE], spans, tables)
        split = shares(frame["expert_index"], self._owners, self._firsts)
        asked = self.shards.ask(split, frame["x"])
        if SHARED in self._parts:
            self._parts[SHARED].run(frames[SHARED], spans, tables)
        parts = frame["parts"]
        lost = self.shards.take(asked, parts.reshape(-1, parts.shape[-1]))
        if lost:
            raise _failure(lost, split, spans)
        self._parts[REST].run(frames[REST], spans, tables)


def _failure(
    lost: dict[int, RuntimeBundleError], split: list[Share | None], spans: Several[Span]
) -> RuntimeBundleError:
    """What becomes of a call that shards gave nothing to. Of those that are lost it is known whose rows needed them; a
    failure inside of one may be anybody's, as in a step that is one graph."""
    gone = [index for index, error in lost.items() if isinstance(error, Unavailable)]
    if not gone:
        return next(iter(lost.values()))
    ends = np.cumsum([span.rows for span in spans])
    rows = np.concatenate([share.rows for index in gone if (share := split[index]) is not None])
    needed = frozenset(spans[number].sequence for number in np.searchsorted(ends, rows, "right").tolist())
    return Unavailable(str(lost[gone[0]]), sequences=needed)
