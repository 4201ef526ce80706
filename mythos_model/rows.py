"""The three parts of a looped model over packed rows: before the loop, one loop, behind it.

    >>> parts(model)["step"](*tensors in the order of row_ports(...)["step"].inputs)

They are made of the family's own layers: what differs from a whole forward pass is the cache (pages instead of a past)
and that every row is at a depth of its own. `encode`, `advance`, `finish` and `readout` are called with rows [R, ...]
where they have a batch of tokens [B, T, ...], and with an iteration [R] instead of a scalar.

A row's values may not hang on the rows beside it, not even by a rounding. So the rotary angles are a table: the engines
compute cosines of many numbers at a time, and those left over in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import ENTER, LEAVE, MOST_LOOPS, STEP


class Rows(NamedTuple):
    """Where the rows of a call stand; the arguments of `mythos_model.paged_ops`, and the angles of their positions."""

    position: Tensor
    span: Tensor
    tables: Tensor
    rotary: Rotary


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

    def attend(self, attention: nn.Module, x: Tensor, rows: Rows) -> Tensor:
        """Run a layer's attention on its own cache: x [R, D] -> [R, D]."""
        index = len(self.written)
        show = self.shown if self.shown is None or self.shown[-1] != "." else f"{self.shown}{index}"
        y, cache = cast(Any, attention).paged(x, rows, self.caches[index], show)
        self.written.append(cache)
        return y  # type: ignore[no-any-return]


class Part(nn.Module):
    """One of the three graphs as a module: its ports are its arguments, in their order, and its results."""

    def __init__(self, model: LoopedModel, ports: Ports) -> None:
        super().__init__()
        self.model, self.ports = model, ports
        if any(port.role == "position" for port in ports.inputs):
            angles = model.angles(torch.arange(model.sizes.longest).unsqueeze(0), torch.zeros(1, dtype=torch.int64))
            self.rotary_cos = nn.Buffer(angles.rotary.cos[0])  # [longest, P/2]
            self.rotary_sin = nn.Buffer(angles.rotary.sin[0])

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        values = {port.name: value for port, value in zip(self.ports.inputs, arguments, strict=True)}
        named = {port.role: values[port.name] for port in self.ports.inputs}
        caches = [values[port.name] for port in self.ports.inputs if port.role == "cache"]
        lines = PagedLines(caches, self.model._shown if isinstance(self, Step) else None)
        rows = None
        if "position" in named:
            position = named["position"]
            rotary = Rotary(F.embedding(position, self.rotary_cos), F.embedding(position, self.rotary_sin))
            rows = Rows(position, named["span"], named["tables"], rotary)
        state = {port.group: values[port.name] for port in self.ports.inputs if port.role == "state"}
        out = self.compute(named, state, cast(Lines, lines), cast(Past, rows))
        return (*out, *lines.written)

    def compute(self, named: Mapping[str, Tensor], state: Mapping[Any, Tensor], lines: Lines, rows: Past) -> Any:
        """Outputs in the order of the ports, without the caches.

        Args:
            named: inputs by role, those that are one of a kind.
            state: the carried state by name, in the spec's order.
        """
        raise NotImplementedError


class Enter(Part):
    def compute(self, named: Mapping[str, Tensor], state: Mapping[Any, Tensor], lines: Lines, rows: Past) -> Any:
        return (self.model.encode(named["ids"], lines, rows).to(torch.float32),)


class Step(Part):
    def compute(self, named: Mapping[str, Tensor], state: Mapping[Any, Tensor], lines: Lines, rows: Past) -> Any:
        model = self.model
        encoded, (h, *carried) = named["encoded"], state.values()
        threshold = named["halt_threshold"] if "halt_threshold" in named else encoded.new_zeros(())
        nothing = cast(Tensor, None)  # the loop is the engine's: there is no past, no limit
        context = Context(
            encoded=encoded,
            own=model.prepare(encoded, torch.arange(MOST_LOOPS)),
            past=rows,
            stored=nothing,
            limit=nothing,
            depths=MOST_LOOPS,
            halt_threshold=threshold,
            every_loop=nothing,
        )
        h = tap(model.advance(h, named["loop"], lines, context), "h")
        ahead, _running = model.exit.update(type(model.exit).State(*carried), h, threshold, named["last"])
        return (h, *ahead)


class Leave(Part):
    def compute(self, named: Mapping[str, Tensor], state: Mapping[Any, Tensor], lines: Lines, rows: Past) -> Any:
        x = self.model.finish(named["answer"], lines, rows)
        return (self.model.readout(x.index_select(0, named["pick"])).to(torch.float32),)


def parts(model: LoopedModel) -> dict[str, Part]:
    """The three, by the names of their graphs."""
    graphs = model.spec.graphs
    return {name: kind(model, graphs[name]) for name, kind in ((ENTER, Enter), (STEP, Step), (LEAVE, Leave))}
