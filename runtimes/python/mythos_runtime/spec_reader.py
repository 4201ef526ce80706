"""Reads a `LoopSpec` from a manifest: every field by name and type, and the whole held together."""

from __future__ import annotations

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import Fields
from mythos_runtime.ports import CACHE_DTYPES, DTYPES, INPUT_ROLES, OUTPUT_ROLES, SYMBOLS, Dim, Port, Ports
from mythos_runtime.spec import (
    MODEL,
    CacheGroup,
    ExitRule,
    Knob,
    LoopSpec,
    StateTensor,
    TraceTensor,
    model_ports,
)

MOST = (1 << 31) - 1  # of any single size: sums and products of a few stay within 64 bits
STARTS = ("zeros", "ones", "encoded", "initial", "noise")
KINDS = ("value", "choice", "chosen", "halted", "count")


def read_spec(fields: Fields) -> LoopSpec:
    """A spec from the manifest's field. Raises BundleError."""

    def size(of: Fields, name: str, least: int = 1) -> int:
        return of.integer(name, least, MOST)

    graphs = fields.inner("graphs")
    spec = LoopSpec(
        family=fields.text("family"),
        vocab_size=size(fields, "vocab_size"),
        max_seq_len=size(fields, "max_seq_len"),
        max_output_tokens=size(fields, "max_output_tokens"),
        trained_loops=size(fields, "trained_loops"),
        caches=tuple(_cache(item) for item in fields.items("caches")),
        state=tuple(_state(item) for item in fields.items("state")),
        exit=_exit(fields.inner("exit")),
        trace=tuple(_trace(item) for item in fields.items("trace")),
        graphs={name: _ports(graphs.inner(name)) for name in graphs.names()},
    )
    fields.done()
    if MODEL not in spec.graphs:
        raise fields.fail("graphs", f"an object with the graph {MODEL}", sorted(spec.graphs))
    problem = _contradiction(spec)
    if problem is not None:
        raise BundleError(f"{fields.where}: the spec does not hold together: {problem}; export the model again")
    return spec


def _contradiction(spec: LoopSpec) -> str | None:
    """What the spec's ports say otherwise than its sizes: runtimes allocate by the one and feed the other."""
    drawn = spec.initial
    if drawn is not None and not (drawn.dtype == "float32" and _is_vector(drawn.dims)):
        port = Port(drawn.name, drawn.dtype, drawn.dims, "")
        return f"the state {port} is drawn, which only one of float32 [B, T, size] can be"
    spent = spec.exit.spent
    if spent is not None and not any(each.name == spent and each.dtype == "float32" for each in spec.state):
        return f"the exit rule sums its weights in {spent}, which is no float32 state"
    want = model_ports(spec.vocab_size, spec.caches, spec.exit, spec.initial)
    for side in ("inputs", "outputs"):
        expected, found = getattr(want, side), getattr(spec.ports, side)
        for port in expected:
            if port not in found:
                other = next((each for each in found if (each.role, each.group) == (port.role, port.group)), None)
                found_instead = "" if other is None else f" and hold {other} instead"
                return f"the {side} lack {port}{found_instead}"
        for port in found:
            if port not in expected:
                return f"the {side} hold {port}, which this runtime does not know"
        if expected != found:
            return f"the {side} are in another order: {', '.join(port.name for port in found)}"
    return None


def _is_vector(dims: tuple[Dim, ...]) -> bool:
    """Whether there is one vector per token."""
    return len(dims) == 3 and dims[:2] == ("B", "T") and isinstance(dims[2], int)


def _cache(fields: Fields) -> CacheGroup:
    group = CacheGroup(
        fields.text("name"),
        fields.integer("slots", 1, MOST),
        fields.boolean("per_loop"),
        fields.integer("width", 1, MOST),
        fields.choice("dtype", CACHE_DTYPES),
        fields.integer("before", 0, MOST),
    )
    fields.done()
    return group


def _exit(fields: Fields) -> ExitRule:
    rule = ExitRule(
        fields.text("name"),
        fields.text("meaning"),
        tuple(_knob(item) for item in fields.items("knobs")),
        fields.optional_text("spent"),
    )
    fields.done()
    return rule


def _knob(fields: Fields) -> Knob:
    knob = Knob(
        fields.text("name"),
        fields.number("default"),
        fields.optional_number("least"),
        fields.optional_number("most"),
        fields.text("meaning"),
    )
    fields.done()
    return knob


def _state(fields: Fields) -> StateTensor:
    state = StateTensor(
        fields.text("name"),
        fields.choice("dtype", DTYPES),
        _dims(fields),
        fields.choice("start", STARTS),
        fields.optional_number("scale"),
        fields.optional_number("cut"),
    )
    fields.done()
    return state


def _trace(fields: Fields) -> TraceTensor:
    tensor = TraceTensor(
        fields.text("name"),
        fields.choice("dtype", DTYPES),
        _dims(fields),
        fields.choice("kind", KINDS),
        fields.boolean("until_halted"),
        fields.boolean("unit"),
        fields.optional_text("of"),
    )
    fields.done()
    return tensor


def _ports(fields: Fields) -> Ports:
    sides = [
        tuple(_port(item, tuple(roles)) for item in fields.items(side))
        for side, roles in (("inputs", INPUT_ROLES), ("outputs", OUTPUT_ROLES))
    ]
    fields.done()
    return Ports(*sides)


def _port(fields: Fields, roles: tuple[str, ...]) -> Port:
    port = Port(
        fields.text("name"),
        fields.choice("dtype", DTYPES),
        _dims(fields),
        fields.choice("role", roles),
        fields.optional_text("group"),
    )
    fields.done()
    return port


def _dims(fields: Fields) -> tuple[Dim, ...]:
    dims = fields.listed("dims")
    for dim in dims:
        plain = isinstance(dim, int) and not isinstance(dim, bool) and 0 <= dim <= MOST
        if not plain and dim not in SYMBOLS:
            raise fields.fail("dims", f"a list of sizes and of the symbols {', '.join(SYMBOLS)}", dim)
    return tuple(dims)
