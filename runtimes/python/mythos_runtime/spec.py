"""What a bundle says of its model: everything that running it needs, and nothing of the family it comes from.

    >>> spec = read_manifest("bundle").spec
    >>> spec.trained_loops, spec.exit.knob("halt_threshold").default
    (16, 0.99)

The exporter asks a model for its spec (`mythos_model.looped.LoopedModel.spec`), the manifest carries it (field `spec`,
format version 2), both runtimes read it. C++ has the same in spec.hpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mythos_runtime.ports import Dim, Port, Ports

SCALE_BYTES = 2  # of a part of a rounded line, behind its integers
MODEL = "model"  # the graph that is the whole model, one call of it a whole forward pass


@dataclass(frozen=True)
class CacheGroup:
    """Cache lines of one kind: `slots` of them per token around the loop, or per token and loop.

    Attributes:
        name: the ports are past_NAME and new_NAME.
        slots: lines per token; `per_loop`: per token and loop depth.
        before: how many of the slots are filled before the loop (of a group around the loop).
        width: values of a line.
        dtype: of a value, where lines are whole: what the model's graph is given and gives.
        rounded: the widths of a line's parts that are rounded to int8, each with a scale of its own, before anybody
            reads them. A page of an engine holds lines as int8 then: the integers, and behind them two bytes of each
            scale, a bfloat16, the low one first. Nothing: lines are not rounded, and pages hold them as they are.
    """

    name: str
    slots: int
    per_loop: bool
    width: int
    dtype: str
    before: int = 0
    rounded: tuple[int, ...] = ()

    @property
    def page_dtype(self) -> str:
        """Of what a page holds."""
        return "int8" if self.rounded else self.dtype

    @property
    def page_width(self) -> int:
        """Of a page's lines, in its dtype."""
        return self.width + SCALE_BYTES * len(self.rounded)

    @property
    def lines(self) -> tuple[Dim, ...]:
        """The leading dims of its buffers [..., B, P, width]; one slot per loop has no axis of its own."""
        if not self.per_loop:
            return (self.slots,)
        return ("N",) if self.slots == 1 else ("N", self.slots)


@dataclass(frozen=True)
class Knob:
    """A number that may be set at every call. `least` and `most` are None where nothing bounds it."""

    name: str
    default: float
    least: float | None
    most: float | None
    meaning: str


@dataclass(frozen=True)
class ExitRule:
    """How a token decides that it has been looped enough; `name` is what `--exit` calls it.

    Attributes:
        spent: of an answer that is a weighted sum of states, the name of the state that holds the weights given so far.
            An answer before the last loop then takes what is left of 1 from the state; None: it is the answer so far.
    """

    name: str
    meaning: str
    knobs: tuple[Knob, ...] = ()
    spent: str | None = None

    def knob(self, name: str) -> Knob | None:
        return next((knob for knob in self.knobs if knob.name == name), None)


@dataclass(frozen=True)
class StateTensor:
    """What one loop hands to the next.

    Attributes:
        start: zeros, ones, encoded (what stands before the loop), noise (an input, drawn per position:
            `mythos_runtime.noise`) or initial (that noise).
        scale, cut: of noise: the standard deviation, and at how many of them it is cut.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    start: str
    scale: float | None = None
    cut: float | None = None


@dataclass(frozen=True)
class TraceTensor:
    """What verification looks at after every loop.

    Attributes:
        dims: of one loop.
        kind: value; choice, a set of indices along the last axis that a comparison of scores decided; chosen, the
            values that go with the choice `of`; halted, decided by the tensor `of` reaching the threshold; count.
        until_halted: compared only where the position had not halted: afterwards it reaches no output of its own.
        unit: its errors are held to 1, others to the tensor's largest value.
    """

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    kind: str
    until_halted: bool = False
    unit: bool = False
    of: str | None = None


@dataclass(frozen=True)
class LoopSpec:
    """A looped model as its runtime sees it.

    Attributes:
        family: for people.
        vocab_size, max_seq_len, max_output_tokens: the ids it knows, the longest sequence, the most new tokens.
        trained_loops: the default of max_loops.
        caches: at most one group around the loop and one inside; empty ones do not exist.
        state: what the loop carries, beside its counter and the new cache entries.
        exit: the exit rule and its knobs.
        trace: in the order of the dataflow.
        graphs: ports by graph; "model" is there always.
    """

    family: str
    vocab_size: int
    max_seq_len: int
    max_output_tokens: int
    trained_loops: int
    caches: tuple[CacheGroup, ...]
    state: tuple[StateTensor, ...]
    exit: ExitRule
    trace: tuple[TraceTensor, ...]
    graphs: Mapping[str, Ports]

    @property
    def ports(self) -> Ports:
        """Of the whole model."""
        return self.graphs[MODEL]

    @property
    def initial(self) -> StateTensor | None:
        """The state that is drawn, where one is."""
        return next((tensor for tensor in self.state if tensor.start == "noise"), None)

    @property
    def int8_cache(self) -> bool:
        """Whether cache lines are rounded to int8, and pages hold them so."""
        return any(group.rounded for group in self.caches)

    def cache(self, name: str) -> CacheGroup | None:
        return next((group for group in self.caches if group.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `spec_reader.read_spec` reads back to an equal spec."""
        data = asdict(self)
        for group in data["caches"]:
            if not group["rounded"]:
                del group["rounded"]  # readers from before there was such a field know no other caches
        data["graphs"] = {
            name: {side: [asdict(port) for port in getattr(ports, side)] for side in ("inputs", "outputs")}
            for name, ports in self.graphs.items()
        }
        plain: dict[str, Any] = _lists(data)
        return plain


def model_ports(vocab_size: int, caches: tuple[CacheGroup, ...], exit: ExitRule, initial: StateTensor | None) -> Ports:
    """The ports of a whole model. `initial` is the state that is an input, where one is."""
    inputs = [
        Port("input_ids", "int64", ("B", "T"), "ids"),
        Port("positions", "int64", ("B", "T"), "positions"),
        Port("past_lengths", "int64", ("B",), "past_lengths"),
        Port("max_loops", "int64", (), "max_loops"),
    ]
    if exit.knob("halt_threshold") is not None:
        inputs.append(Port("halt_threshold", "float32", (), "halt_threshold"))
    inputs.append(Port("early_exit", "bool", (), "early_exit"))
    if initial is not None:
        inputs.append(Port("initial_state", initial.dtype, initial.dims, "initial_state"))
    outputs = [
        Port("logits", "float32", ("B", "T", vocab_size), "logits"),
        Port("depth", "int32", ("B", "T"), "depth"),
        Port("loops", "int64", (), "loops"),
    ]
    for group in caches:
        past, new = ((*group.lines, "B", length, group.width) for length in ("P", "T"))
        inputs.append(Port(f"past_{group.name}", group.dtype, past, "past", group.name))
        outputs.append(Port(f"new_{group.name}", group.dtype, new, "new", group.name))
    return Ports(tuple(inputs), tuple(outputs))


def _lists(value: Any) -> Any:
    """Tuples as JSON writes them."""
    if isinstance(value, dict):
        return {name: _lists(each) for name, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, list | tuple) else value
