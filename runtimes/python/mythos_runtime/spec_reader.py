"""Reads a `LoopSpec` from a manifest: every field by name and type, and the whole held together."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import Fields
from mythos_runtime.line_ports import ENCODED, TOKEN
from mythos_runtime.ports import CACHE_DTYPES, DTYPES, INPUT_ROLES, OUTPUT_ROLES, SYMBOLS, Dim, Port, Ports
from mythos_runtime.row_ports import GRAPHS, STEP, row_ports
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
        graphs={name: read_ports(graphs.inner(name)) for name in graphs.names()},
    )
    fields.done()
    if MODEL not in spec.graphs:
        raise fields.fail("graphs", f"an object with the graph {MODEL}", sorted(spec.graphs))
    problem = _contradiction(spec)
    if problem is not None:
        raise BundleError(f"{fields.where}: the spec does not hold together: {problem}; export the model again")
    return spec


def _contradiction(spec: LoopSpec) -> str | None:
    """What of a spec does not go together; the same words as in C++ (spec.cpp)."""
    problem = _of_names(spec) or _of_caches(spec) or _of_state(spec) or _of_exit(spec) or _of_trace(spec)
    if problem is not None:
        return problem
    want = model_ports(spec.vocab_size, spec.caches, spec.exit, spec.initial)
    return _of_ports(want, spec.ports) or _of_rows(spec)


def _of_names(spec: LoopSpec) -> str | None:
    parts = {
        "caches": [group.name for group in spec.caches],
        "states": [tensor.name for tensor in spec.state],
        "knobs": [knob.name for knob in spec.exit.knobs],
        "tensors of the trace": [tensor.name for tensor in spec.trace],
    }
    for what, names in parts.items():
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            return f"two {what} are called {twice}"
    beside = next((name for name in parts["states"] if name in (ENCODED, TOKEN)), None)
    return None if beside is None else f"a state is called {beside}, as what is kept beside the states"


def _of_caches(spec: LoopSpec) -> str | None:
    inside = sum(group.per_loop for group in spec.caches)
    around = len(spec.caches) - inside
    if inside != 1 or around > 1:
        return f"there are {inside} caches inside the loop and {around} around it, expected one and at most one"
    for group in spec.caches:
        if group.before > (0 if group.per_loop else group.slots):
            return f"the cache {group.name} fills {group.before} of its {group.slots} slots before the loop"
        if group.rounded and (group.dtype != "float32" or sum(group.rounded) != group.width):
            return (
                f"the cache {group.name} rounds parts of {sum(group.rounded)} values in all, where a line is "
                f"{group.width} values of {group.dtype}, expected float32 and all of them"
            )
    return None


def _of_state(spec: LoopSpec) -> str | None:
    if len(spec.state) < 2:
        return "the loop carries fewer than two states"
    drawn = [tensor for tensor in spec.state if tensor.start == "noise"]
    if len(drawn) > 1:
        return f"the states {drawn[0].name} and {drawn[1].name} are both drawn"
    if drawn and not (drawn[0].dtype == "float32" and _is_vector(drawn[0].dims)):
        port = Port(drawn[0].name, drawn[0].dtype, drawn[0].dims, "")
        return f"the state {port} is drawn, which only one of float32 [B, T, size] can be"
    first = spec.state[0]
    for number, tensor in enumerate(spec.state):
        sizes = tensor.dims[2:]
        if tensor.dims[:2] != ("B", "T") or not all(isinstance(size, int) for size in sizes):
            return f"the state {tensor.name} is not one of [B, T, sizes]"
        wide = number < 2 or tensor.start in ("encoded", "initial", "noise")  # the second one is the answer
        if wide and (tensor.dtype != "float32" or tensor.dims != first.dims):
            return f"the state {tensor.name} is not float32 of the size of {first.name}"
        if tensor.start == "initial" and not drawn:
            return f"the state {tensor.name} begins with noise that none is"
    flat = {(tensor.name, tensor.dtype) for tensor in spec.state if len(tensor.dims) == 2}
    if not {("halted", "bool"), ("depth", "int32")} <= flat:
        return "the loop does not carry halted bool and depth int32"
    return None


def _of_exit(spec: LoopSpec) -> str | None:
    spent = spec.exit.spent
    if spent is not None and not any(each.name == spent and each.dtype == "float32" for each in spec.state):
        return f"the exit rule sums its weights in {spent}, which is no float32 state"
    for knob in spec.exit.knobs:
        low = -math.inf if knob.least is None else knob.least
        high = math.inf if knob.most is None else knob.most
        if not low <= knob.default <= high:
            return f"the knob {knob.name} is outside of its own range"
    return None


def _of_trace(spec: LoopSpec) -> str | None:
    kinds = {tensor.name: tensor.kind for tensor in spec.trace}
    wanted = {"chosen": ("choice",), "halted": ("value", None)}
    for tensor in spec.trace:
        if tensor.dims[:2] != ("B", "T"):
            return f"the tensor {tensor.name} of the trace is not one of [B, T, sizes]"
        of = None if tensor.of is None else kinds.get(tensor.of, "nothing")
        if of not in wanted.get(tensor.kind, (None,)):
            return f"the tensor {tensor.name} of the trace is {tensor.kind} of {tensor.of}, which is {of}"
    return None


def _of_ports(want: Ports, have: Ports) -> str | None:
    """What ports say otherwise than the sizes: runtimes allocate by the one and feed the other."""
    for side in ("inputs", "outputs"):
        expected, found = getattr(want, side), getattr(have, side)
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


def _of_rows(spec: LoopSpec) -> str | None:
    """The row graphs: a bundle has all of them or none."""
    given = sorted(spec.graphs.keys() - {MODEL})
    if not given:
        return None
    if given != sorted(GRAPHS):
        return f"the graphs are {MODEL}, {', '.join(given)}, expected {', '.join((MODEL, *GRAPHS))}"
    ports = sum(len(spec.graphs[name].inputs) for name in GRAPHS)
    for group in spec.caches:
        if group.slots > ports:
            return f"the cache {group.name} has {group.slots} slots, for which there are no ports"
    ids = Port("input_ids", "int64", ("R",), "ids")
    want = row_ports(spec.vocab_size, spec.caches, spec.state, spec.exit, ids in spec.graphs[STEP].inputs)
    for name in GRAPHS:
        problem = _of_ports(want[name], spec.graphs[name])
        if problem is not None:
            return f"{name}: {problem}"
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
        _rounded(fields),
    )
    fields.done()
    return group


def _rounded(fields: Fields) -> tuple[int, ...]:
    """Widths of parts; a field that caches lack whose lines are not rounded."""
    if fields.peek("rounded") is None:
        fields.take("rounded", None)
        return ()
    widths = fields.listed("rounded")
    if not widths:
        raise fields.fail("rounded", "a list of one size or more", widths)
    for width in widths:
        if not isinstance(width, int) or isinstance(width, bool) or not 1 <= width <= MOST:
            raise fields.fail("rounded", f"a list of sizes from 1 to {MOST}", width)
    return tuple(widths)


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


def read_ports(fields: Fields, inputs: Iterable[str] = INPUT_ROLES, outputs: Iterable[str] = OUTPUT_ROLES) -> Ports:
    """The ports of a graph, of these roles. Raises BundleError."""
    sides = [
        tuple(_port(item, tuple(roles)) for item in fields.items(side))
        for side, roles in (("inputs", inputs), ("outputs", outputs))
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
