"""The ports of the three row graphs: the model's step by itself, for an engine that decides which rows run it.

    enter: new tokens -> what stands before the loop          (the layers before it)
    step:  rows at any depth -> their state, one loop on
    leave: the states that answer -> logits                   (the layers behind it, and the head)

Beside them `loops` is the step in an ONNX Loop, for rows that stay together for several loops: one call instead of
many. It writes into the pages that it is given, which takes this project's operators.

A row is a token of a sequence at a depth; rows of any sequences and depths go into one call. Caches are pages
(`mythos_model.paged_ops`), one port for each layer of a part; all layers of a part share the tables.
"""

from __future__ import annotations

from dataclasses import replace

from mythos_runtime.ports import Dim, Port, Ports
from mythos_runtime.spec import CacheGroup, ExitRule, StateTensor

ENTER, STEP, LEAVE = GRAPHS = ("enter", "step", "leave")
LOOPS = "loops"
LOOPS_FILE = f"{LOOPS}.onnx"
PER_LOOP = ("last", "halt_threshold")
"""Roles of the step's inputs that have an axis of loops in `loops`."""
ROWS = "rows.pt2"
"""In a bundle: all three, one behind the other, as one captured program, which holds their weights once."""
PAGE = 32
"""Positions of a page. The CPU kernels take no other: it is the number of keys that they attend to at a time."""
MOST_LOOPS = 256
"""Loops that a row can run: what a loop is told of its number is a table of as many lines."""


def row_ports(
    vocab_size: int,
    caches: tuple[CacheGroup, ...],
    state: tuple[StateTensor, ...],
    exit: ExitRule,
    reads_tokens: bool = False,
) -> dict[str, Ports]:
    """The ports of the row graphs, by graph. Arguments are those of the spec; state[0] is h, state[1] the answer.

    `reads_tokens`: the layers in the loop and behind it read the rows' tokens too.
    """
    around = next((group for group in caches if not group.per_loop), None)
    inside = next(group for group in caches if group.per_loop)
    before, slots = (around.before, around.slots) if around else (0, 0)
    rows = ("R", *_own(state[0]))
    encoded = Port("encoded", "float32", rows, "encoded")

    ids = Port("input_ids", "int64", ("R",), "ids")
    enter = _part((ids,), (encoded,), around, range(before))

    knobs = [Port("loop", "int64", ("R",), "loop"), Port("last", "bool", ("R",), "last")]
    if exit.knob("halt_threshold") is not None:
        knobs.append(Port("halt_threshold", "float32", ("R",), "halt_threshold"))
    carried = [Port(each.name, each.dtype, ("R", *_own(each)), "state", each.name) for each in state]
    ahead = [Port(f"{port.name}_next", port.dtype, port.dims, "state_next", port.group) for port in carried]
    again = (ids,) if reads_tokens else ()
    step = _part((encoded, *again, *carried, *knobs), tuple(ahead), inside, range(inside.slots))

    answer = Port("answer", "float32", rows, "answer", state[1].name)
    pick = Port("pick", "int64", ("W",), "pick")
    logits = Port("logits", "float32", ("W", vocab_size), "logits")
    again = again if slots > before else ()
    leave = _part((answer, pick, *again), (logits,), around, range(before, slots))
    return {ENTER: enter, STEP: step, LEAVE: leave}


def loop_ports(step: Ports) -> Ports:
    """The ports of the step in a Loop, where L is the most loops that a call can run.

    As the step's, but for

        loops int64 []: the most loops that this call runs. last, halt_threshold [L, R]: of each.
        tables [T, K], spans int64 []: of each loop as many as there are spans, loop after loop; span is of the first.
        loop int64 [R]: of the first. stops bool [R]: whether no loop follows one that this row has halted in.
        ran int64 []: the loops that it ran, 1 or more.

    and that there is no cache among the outputs.
    """
    inputs = [replace(port, dims=("L", *port.dims)) if port.role in PER_LOOP else port for port in step.inputs]
    inputs = [replace(port, dims=("T", "K")) if port.role == "tables" else port for port in inputs]
    outputs = [port for port in step.outputs if port.role != "cache_next"]
    own = (
        Port("loops", "int64", (), "loops"),
        Port("spans", "int64", (), "spans"),
        Port("stops", "bool", ("R",), "stops"),
    )
    return Ports((*own, *inputs), (*outputs, Port("ran", "int64", (), "ran")))


def _part(inputs: tuple[Port, ...], outputs: tuple[Port, ...], group: CacheGroup | None, slots: range) -> Ports:
    """With the ports of its cache, where it has layers."""
    if group is None or not slots:
        return Ports(inputs, outputs)
    place = (
        Port("position", "int64", ("R",), "position"),
        Port("span", "int64", ("R",), "span"),
        Port("tables", "int64", ("S", "K"), "tables"),
    )
    pages, dtype = ("G", PAGE, group.page_width), group.page_dtype
    caches = [Port(f"cache_{slot}", dtype, pages, "cache", group.name) for slot in slots]
    after = [Port(f"cache_{slot}_next", dtype, pages, "cache_next", group.name) for slot in slots]
    return Ports((*inputs, *place, *caches), (*outputs, *after))


def _own(tensor: StateTensor) -> tuple[Dim, ...]:
    """Dims of one position, of dims (B, T, ...)."""
    return tensor.dims[2:]
