"""The ports of the graphs that reach states and pages where ONNX Runtime runs the row graphs on a device.

States and pages stay there, in pools of lines. A call of a row graph is one call of it *on lines*: it is told the
numbers of the rows' lines, takes their states out of the pools itself, and puts what it makes into them
(`mythos_export.rows_on_lines` makes these graphs of the row graphs, on the same weights). What the host needs to know
of a step is one output, `seen`. `take_bytes` and `put_bytes` do with any pool, seen as lines of bytes, what forks and
reads of pages need.

A pool is an input and an output of what writes it; where a caller binds one buffer as both, it is written in place.
Symbols in dims beside the row graphs' own: L lines of a pool, R of them that are read or written, B bytes of one.
"""

from __future__ import annotations

from collections.abc import Iterable

from mythos_runtime.ports import Dim, Port, Ports
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, STEP
from mythos_runtime.spec import LoopSpec

FOLDER = "lines"
"""Of a bundle."""
TAKE_BYTES, PUT_BYTES = "take_bytes", "put_bytes"
ENCODED, TOKEN = "encoded", "token"
"""What stands before the loop, and the position's id: kept beside the states that the loop carries."""
INITIAL, SEEN = "initial", "seen"
"""Ports: the state that was drawn for new rows; who has halted, and after how many loops, int32 [R, 2]."""


def move_ports() -> dict[str, Ports]:
    """The ports of the graphs that move lines of bytes, by graph."""
    lines, held = Port("lines", "int64", ("R",), "lines"), ("L", "B")
    pool, rows = Port("pool", "int8", held, "pool"), Port("rows", "int8", ("R", "B"), "row")
    return {
        TAKE_BYTES: Ports((lines, pool), (rows,)),
        PUT_BYTES: Ports((lines, rows, pool), (Port("pool_next", "int8", held, "pool_next"),)),
    }


def move_file(graph: str) -> str:
    """Its path in a bundle."""
    return f"{FOLDER}/{graph}.onnx"


def rows_on_lines(spec: LoopSpec) -> dict[str, Ports]:
    """The ports of the row graphs on lines, by the row graph."""
    enter, step, leave = (spec.graphs[name] for name in GRAPHS)
    states = [tensor.name for tensor in spec.state]
    drawn = next((tensor for tensor in spec.state if tensor.start == "noise"), None)
    own = () if drawn is None else (Port(INITIAL, drawn.dtype, ("R", *_own(drawn.dims)), INITIAL),)
    every = _pools(spec, (*states, ENCODED, TOKEN))

    seen = Port(SEEN, "int32", ("R", 2), SEEN)
    reads = [ENCODED, *([TOKEN] if step.has("ids") else [])]
    carried = _pools(spec, states)

    left = [spec.state[1].name, *([TOKEN] if leave.has("ids") else [])]
    early: tuple[Port, ...] = ()
    if spec.exit.spent is not None:
        left += [spec.state[0].name, spec.exit.spent, "halted"]
        early = (Port("early", "bool", ("R",), "early"),)
    return {
        ENTER: Ports((_LINES, *enter.inputs, *own, *every), (*_but(enter.outputs, "encoded"), *_after(every))),
        STEP: Ports(
            (_LINES, *_but(step.inputs, "encoded", "ids", "state"), *_pools(spec, reads), *carried),
            (seen, *_but(step.outputs, "state_next"), *_after(carried)),
        ),
        LEAVE: Ports(
            (_LINES, *early, *_but(leave.inputs, "answer", "ids"), *_pools(spec, dict.fromkeys(left))), leave.outputs
        ),
    }


def on_lines(graph: str) -> str:
    """The name of a row graph on lines."""
    return f"{graph}_lines"


def rows_file(graph: str) -> str:
    """The file in a bundle that is a row graph on lines: beside the row graph, whose weights it has."""
    return f"{on_lines(graph)}.onnx"


def device_files() -> tuple[str, ...]:
    """All files of a bundle that the engine needs in ONNX Runtime on a device."""
    return (*map(rows_file, GRAPHS), *map(move_file, move_ports()))


def held_lines(spec: LoopSpec) -> dict[str, tuple[str, tuple[Dim, ...]]]:
    """What is kept of a position that lags, by name: dtype and dims of one line."""
    own = {tensor.name: (tensor.dtype, _own(tensor.dims)) for tensor in spec.state}
    return own | {ENCODED: own[spec.state[0].name], TOKEN: ("int64", ())}


_LINES = Port("lines", "int64", ("R",), "lines")


def _pools(spec: LoopSpec, names: Iterable[str]) -> list[Port]:
    held = held_lines(spec)
    return [Port(f"{name}_pool", held[name][0], ("L", *held[name][1]), "pool", name) for name in names]


def _after(pools: Iterable[Port]) -> list[Port]:
    return [Port(f"{pool.name}_next", pool.dtype, pool.dims, "pool_next", pool.group) for pool in pools]


def _but(ports: Iterable[Port], *roles: str) -> list[Port]:
    return [port for port in ports if port.role not in roles]


def _own(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Dims of one position, of dims (B, T, ...)."""
    return tuple(dim for dim in dims if isinstance(dim, int))
