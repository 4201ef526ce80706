"""The three parts of a looped model over packed rows: before the loop, one loop, behind it.

    >>> RowParts(model).run("step", *tensors in the order of model.spec.graphs["step"].inputs)

They are made of the family's own layers: what differs from a whole forward pass is the cache (pages instead of a past)
and that every row is at a depth of its own. `encode`, `advance`, `finish` and `readout` are called with rows [R, ...]
where they have a batch of tokens [B, T, ...], and with an iteration [R] instead of a scalar.

A row's values may not depend on the rows beside it, not even by a rounding. So the rotary angles are a table: engines
compute cosines of many numbers at a time, and those left over in another way. For long sequences they are two short
ones, of every NEAR-th position and of those between, whose angles are added.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model.attention import Past
from mythos_model.blocks import Rotary
from mythos_model.looped import LoopedModel
from mythos_model.state import Context, Lines
from mythos_model.taps import tap
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, MOST_LOOPS, STEP

Named = dict[str, Tensor]  # inputs by role
NEAR = 1 << 10
ONE_TABLE = 1 << 14  # positions; of more, one table would be large (at 2^20 positions and 64 channels 268 MB)
_SEVERAL = ("cache", "state")  # roles that several inputs have


class Rows(NamedTuple):
    """Where the rows of a call stand; the arguments of `mythos_model.paged_ops`, the angles of their positions, and
    what layers read of their tokens."""

    position: Tensor
    span: Tensor
    tables: Tensor
    rotary: Rotary
    tokens: Any = None


@dataclass
class PagedLines:
    """The caches of a part's layers, one after the other; in place of `state.Lines`.

    Attributes:
        caches: [pages, page, C] of every layer.
        shown: what verification calls the new entries; None where it does not look.
        written: the caches with the rows' entries, so far.
    """

    caches: list[Tensor]
    shown: str | None = None
    written: list[Tensor] = field(default_factory=list)

    def attend(self, attention: nn.Module, x: Tensor, rows: Rows, *also: Tensor) -> Tensor:
        """Run a layer's attention on its own cache: x [R, D] -> [R, D]."""
        index = len(self.written)
        show = self.shown if self.shown is None or self.shown[-1] != "." else f"{self.shown}{index}"
        y, cache = cast(Any, attention).paged(x, rows, self.caches[index], show, *also)
        self.written.append(cache)
        return y  # type: ignore[no-any-return]


class RowParts(nn.Module):
    """The three graphs as a module; the ports of each are its arguments, in their order, and its results.

    As one module they share what they hold, and are traced and converted at once: `forward` is all of them, one behind
    the other.
    """

    def __init__(self, model: LoopedModel) -> None:
        super().__init__()
        self.model = model
        self.graphs = {name: model.spec.graphs[name] for name in GRAPHS}
        longest = model.sizes.longest
        near = self._angles(torch.arange(longest if longest <= ONE_TABLE else NEAR))
        self.rotary_cos, self.rotary_sin = nn.Buffer(near.cos), nn.Buffer(near.sin)  # [longest or NEAR, P/2]
        if longest > ONE_TABLE:
            far = self._angles(torch.arange(0, longest, NEAR))
            self.rotary_far_cos, self.rotary_far_sin = nn.Buffer(far.cos), nn.Buffer(far.sin)  # [longest / NEAR, P/2]

    def _angles(self, positions: Tensor) -> Rotary:
        """Of positions [n]: [n, P/2]."""
        rotary = self.model.angles(positions.unsqueeze(0), torch.zeros(1, dtype=torch.int64)).rotary
        return Rotary(rotary.cos[0], rotary.sin[0])

    def _rotary(self, position: Tensor) -> Rotary:
        """Of rows' positions, int64 [R]."""
        if self.model.sizes.longest <= ONE_TABLE:
            return Rotary(F.embedding(position, self.rotary_cos), F.embedding(position, self.rotary_sin))
        near, far = position % NEAR, position // NEAR
        between = Rotary(F.embedding(near, self.rotary_cos), F.embedding(near, self.rotary_sin))
        return Rotary(F.embedding(far, self.rotary_far_cos), F.embedding(far, self.rotary_far_sin)).plus(between)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        results: list[Tensor] = []
        at = 0
        for name, ports in self.graphs.items():
            end = at + len(ports.inputs)
            results += self.run(name, *arguments[at:end])
            at = end
        return tuple(results)

    def run(self, graph: str, *arguments: Tensor) -> tuple[Tensor, ...]:
        """One of them."""
        inputs = self.graphs[graph].inputs
        named = {port.role: value for port, value in zip(inputs, arguments, strict=True) if port.role not in _SEVERAL}
        caches = [value for port, value in zip(inputs, arguments, strict=True) if port.role == "cache"]
        state = [value for port, value in zip(inputs, arguments, strict=True) if port.role == "state"]
        lines = PagedLines(caches, self.model._shown if graph == STEP else None)
        rows = None
        if "position" in named:
            position = named["position"]
            tokens = self.model.per_token(named["ids"]) if "ids" in named else None
            rows = Rows(position, named["span"], named["tables"], self._rotary(position), tokens)
        compute = {ENTER: self._enter, STEP: self._step, LEAVE: self._leave}[graph]
        return (*compute(named, state, cast(Lines, lines), cast(Past, rows)), *lines.written)

    def _enter(self, named: Named, state: list[Tensor], lines: Lines, rows: Past) -> tuple[Tensor, ...]:
        return (self.model.encode(named["ids"], lines, rows).to(torch.float32),)

    def _step(self, named: Named, state: list[Tensor], lines: Lines, rows: Past) -> tuple[Tensor, ...]:
        model, encoded, (h, *carried) = self.model, named["encoded"], state
        threshold = named["halt_threshold"] if "halt_threshold" in named else encoded.new_zeros(())
        nothing = cast(Tensor, None)  # the loop is the engine's: there is no past, no limit
        context = Context(
            encoded=encoded,
            own=model.prepare(encoded, torch.arange(MOST_LOOPS)),
            past=rows,
            around=nothing,
            stored=nothing,
            limit=nothing,
            depths=MOST_LOOPS,
            halt_threshold=threshold,
            every_loop=nothing,
        )
        h = tap(model.advance(h, named["loop"], lines, context), "h")
        ahead, _running = model.exit.update(type(model.exit).State(*carried), h, threshold, named["last"])
        return (h, *ahead)

    def _leave(self, named: Named, state: list[Tensor], lines: Lines, rows: Past) -> tuple[Tensor, ...]:
        x = self.model.finish(named["answer"], lines, rows)
        return (self.model.readout(x.index_select(0, named["pick"])).to(torch.float32),)
