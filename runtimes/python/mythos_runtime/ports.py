"""The ports of the model graph: the one place that says what goes in and what comes out.

    >>> ports = model_ports(layers=4, cache_width=40, vocab_size=1000, cache_dtype="float32")
    >>> [port.name for port in ports.outputs]
    ['logits', 'depth', 'loops', 'new_layers', 'new_loop']

Symbols in dims: B batch, T new tokens, P capacity of the past (0 without a cache), N loop depths held by the past.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mythos_runtime.errors import BackendMissing, RequestError

Dim = int | str

DTYPES = ("bool", "int32", "int64", "float16", "bfloat16", "float32")
CACHE_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Port:
    """One input or output: its name, element type, dims (an int, or a symbol bound at run time) and its role."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    role: str

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(dim) for dim in self.dims)}]"


@dataclass(frozen=True)
class Ports:
    """All ports of a graph, in the graph's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def input(self, name: str) -> Port:
        return next(port for port in self.inputs if port.name == name)

    def output(self, name: str) -> Port:
        return next(port for port in self.outputs if port.name == name)


def model_ports(*, layers: int, cache_width: int, vocab_size: int, cache_dtype: str) -> Ports:
    """The ports of a model with `layers` prelude and coda layers together and `cache_width` cached values per token."""
    past = "read-only past: row b's slots below past_lengths[b] hold values, the rest is never read into a result"
    new = "entries of the new tokens, which the runtime writes behind the past"
    return Ports(
        inputs=(
            Port("input_ids", "int64", ("B", "T"), "new tokens; 0 where padded"),
            Port("positions", "int64", ("B", "T"), "absolute position of each new token; -1 marks padding"),
            Port("past_lengths", "int64", ("B",), "tokens that the past holds, per row"),
            Port("max_loops", "int64", (), "most loops to run"),
            Port("halt_threshold", "float32", (), "a token halts when its cumulative probability reaches this"),
            Port("early_exit", "bool", (), "leave the loop as soon as every real token has halted"),
            Port("past_layers", cache_dtype, (layers, "B", "P", cache_width), past + "; prelude layers, then coda"),
            Port("past_loop", cache_dtype, ("N", "B", "P", cache_width), past + "; one slice per loop depth"),
        ),
        outputs=(
            Port("logits", "float32", ("B", "T", vocab_size), "scores of the next token; padding means nothing"),
            Port("depth", "int32", ("B", "T"), "loops that contributed to a token; 0 for padding"),
            Port("loops", "int64", (), "loop iterations that ran"),
            Port("new_layers", cache_dtype, (layers, "B", "T", cache_width), new),
            Port("new_loop", cache_dtype, ("N", "B", "T", cache_width), new + "; depths not run repeat the last one"),
        ),
    )


def first_difference(expected: Ports, found: Ports) -> str | None:
    """What differs between two sets of ports (roles aside), in words; None where they agree."""
    for side in ("inputs", "outputs"):
        want = {port.name: port for port in getattr(expected, side)}
        have = {port.name: port for port in getattr(found, side)}
        for name in want:
            if name not in have:
                return f"the {side} lack {want[name]}"
        for name, port in have.items():
            if name not in want:
                return f"the {side} hold {port}, which this runtime does not know"
            if (port.dtype, port.dims) != (want[name].dtype, want[name].dims):
                return f"the {side} hold {port} where {want[name]} is expected"
    return None


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of a port's element type; bfloat16 needs the optional package ml_dtypes (BackendMissing)."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise BackendMissing("this bundle's caches are bfloat16, which numpy lacks: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


@functools.cache
def _name_of(dtype: np.dtype) -> str:
    """numpy works a dtype's name out anew every time, which one token's decoding would notice."""
    return str(dtype.name)


def shape_of(port: Port, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The port's shape with its symbols replaced by their values."""
    return tuple(dim if isinstance(dim, int) else symbols[dim] for dim in port.dims)


def check_arrays(
    ports: tuple[Port, ...],
    arrays: Mapping[str, np.ndarray],
    symbols: Mapping[str, int] | None = None,
    error: Callable[[str], Exception] = RequestError,
) -> dict[str, int]:
    """Hold arrays against ports: each present, of the right dtype and shape, one value per symbol.

    `symbols` gives values already known. Returns all of them. Raises `error` with the first thing that is off.
    """
    bound = dict(symbols or {})
    for port in ports:
        array = arrays.get(port.name)
        if array is None:
            raise error(f"{port.name} is missing; expected {port}")
        if _name_of(array.dtype) != port.dtype:
            raise error(f"{port.name} is {array.dtype.name}, expected {port}")
        if array.ndim != len(port.dims):
            raise error(f"{port.name} has shape {list(array.shape)}, expected {port}")
        for size, dim in zip(array.shape, port.dims, strict=True):
            want = dim if isinstance(dim, int) else bound.setdefault(dim, size)
            if size != want:
                known = {name: value for name, value in bound.items() if name in port.dims}
                raise error(f"{port.name} has shape {list(array.shape)}, expected {port} with {known}")
    return bound
