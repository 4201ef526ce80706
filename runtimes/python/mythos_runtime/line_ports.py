"""The ports of the graphs that move lines where ONNX Runtime runs the row graphs on a device.

States and pages stay there, in pools of lines, and a graph is all that reaches them: `take` copies lines of every
state out of their pools, for the step to run on, and `put` copies them back. What was taken may stand in a batch of its
own, so the row graphs are the same that run on the CPU. `rest` turns answers so far into early ones. `take_bytes`
and `put_bytes` do with any pool, seen as lines of bytes, what forks and reads of pages need. `cross` copies bytes;
with one side bound on the host it is how C++, whose interface to ONNX Runtime has no other, takes them there and back.

A pool is an input and an output of `put`; where a caller binds one buffer as both, it is written in place. Symbols in
dims: L lines of a pool, R of them that are moved, B bytes of one.
"""

from __future__ import annotations

from mythos_runtime.ports import Dim, Port, Ports
from mythos_runtime.spec import LoopSpec

FOLDER = "lines"
"""Of a bundle."""
TAKE, PUT, REST, TAKE_BYTES, PUT_BYTES, CROSS = "take", "put", "rest", "take_bytes", "put_bytes", "cross"
ENCODED, TOKEN = "encoded", "token"
"""What stands before the loop, and the position's id: kept beside the states that the loop carries."""


def line_ports(spec: LoopSpec) -> dict[str, Ports]:
    """The ports by graph. `rest` is there for exit rules whose answer is a weighted sum (`ExitRule.spent`)."""
    lines, held = Port("lines", "int64", ("R",), "lines"), ("L", "B")
    kept = held_lines(spec)
    rows = [Port(name, dtype, ("R", *own), "row", name) for name, (dtype, own) in kept.items()]
    pools = [Port(f"{name}_pool", dtype, ("L", *own), "pool", name) for name, (dtype, own) in kept.items()]
    after = [Port(f"{pool.name}_next", pool.dtype, pool.dims, "pool_next", pool.group) for pool in pools]
    pool, some = Port("pool", "int8", held, "pool"), Port("rows", "int8", ("R", "B"), "row")
    graphs = {
        TAKE: Ports((lines, *pools), tuple(rows)),
        PUT: Ports((lines, *rows, *pools), tuple(after)),
        TAKE_BYTES: Ports((lines, pool), (some,)),
        PUT_BYTES: Ports((lines, some, pool), (Port("pool_next", "int8", held, "pool_next"),)),
        CROSS: Ports((Port("bytes", "int8", ("B",), "bytes"),), (Port("crossed", "int8", ("B",), "crossed"),)),
    }
    if spec.exit.spent is not None:
        by_name = {port.name: port for port in rows}
        answer = by_name[spec.state[1].name]
        given = (answer, by_name[spec.state[0].name], by_name[spec.exit.spent], by_name["halted"])
        early = Port("early", "bool", ("R",), "early")
        graphs[REST] = Ports((*given, early), (Port("answered", answer.dtype, answer.dims, "answered"),))
    return graphs


def line_files(spec: LoopSpec) -> dict[str, str]:
    """The files of a bundle, by graph."""
    return {name: f"{FOLDER}/{name}.onnx" for name in line_ports(spec)}


def held_lines(spec: LoopSpec) -> dict[str, tuple[str, tuple[Dim, ...]]]:
    """What is kept of a position that lags, by name: dtype and dims of one line."""
    own = {tensor.name: (tensor.dtype, _own(tensor.dims)) for tensor in spec.state}
    return own | {ENCODED: own[spec.state[0].name], TOKEN: ("int64", ())}


def _own(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Dims of one position, of dims (B, T, ...)."""
    return tuple(dim for dim in dims if isinstance(dim, int))
