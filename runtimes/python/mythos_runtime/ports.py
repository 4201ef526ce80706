"""The ports of a graph: what goes in and what comes out, as data that the bundle carries.

    >>> ports = spec.ports                                   # of the whole model
    >>> [port.name for port in ports.outputs]
    ['logits', 'depth', 'loops', 'new_layers', 'new_loop']
    >>> ports.of("past", "loop").dims
    ('N', 'B', 'P', 40)

Nobody knows a port by its name: capture, verification and the runtimes find it by its role, and by the cache group that
it belongs to where it has one. Symbols in dims: B batch, T new tokens, P capacity of the past (0 without a cache), N
loop depths. Of the row graphs (`row_ports`): R rows, S spans, K blocks of a table, G pages, W rows that are answered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mythos_runtime.errors import BackendMissing, RequestError

Dim = int | str

DTYPES = ("bool", "int8", "int32", "int64", "float16", "bfloat16", "float32")
CACHE_DTYPES = ("float32", "float16", "bfloat16")
SYMBOLS = ("B", "T", "P", "N", "R", "S", "K", "G", "W")

INPUT_ROLES: Mapping[str, str] = {
    "ids": "new tokens; 0 where padded",
    "positions": "absolute position of each new token; -1 marks padding",
    "past_lengths": "tokens that the past holds, per row",
    "max_loops": "most loops to run",
    "halt_threshold": "where the exit rule lets a token halt",
    "early_exit": "leave the loop as soon as every real token has halted",
    "initial_state": "the state before the first loop, per token",
    "position": "absolute position of each row",
    "span": "which table is a row's; -1 marks padding",
    "tables": "per span, its pages in the order of positions",
    "cache": "pages of one layer, where the rows' entries are appended",
    "encoded": "what stands before the loop, per row",
    "state": "what a row carries through the loop",
    "loop": "loops that a row has run",
    "last": "whether it is the last loop that a row may run",
    "answer": "the state that answers, per row",
    "pick": "rows whose logits are wanted",
    "past": "read-only past: row b's entries below past_lengths[b] hold values, the rest is never read into a result",
}
OUTPUT_ROLES: Mapping[str, str] = {
    "logits": "scores of the next token; padding means nothing",
    "depth": "loops that contributed to a token; 0 for padding",
    "loops": "loop iterations that ran",
    "encoded": "what stands before the loop, per row",
    "state_next": "what a row carries after one more loop",
    "cache_next": "the cache with the rows' entries; bound to the same buffer, it is appended in place",
    "new": "entries of the new tokens, which the runtime writes behind the past; depths not run repeat the last one",
}


@dataclass(frozen=True)
class Port:
    """One input or output: name, element type, dims (an int, or a symbol bound at run time), role, cache group."""

    name: str
    dtype: str
    dims: tuple[Dim, ...]
    role: str
    group: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(str(dim) for dim in self.dims)}]"


@dataclass(frozen=True)
class Ports:
    """All ports of a graph, in the graph's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def of(self, role: str, group: str | None = None) -> Port:
        """The port of a role. Raises KeyError where the graph has none."""
        for port in (*self.inputs, *self.outputs):
            if port.role == role and port.group == group:
                return port
        raise KeyError(role if group is None else f"{role} of {group}")

    def has(self, role: str) -> bool:
        return any(port.role == role for port in (*self.inputs, *self.outputs))

    def by_role(self, values: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs by port name: `values` by role, the pasts by cache group. Values that no port asks for are left."""
        return {port.name: groups[port.group] if port.group else values[port.role] for port in self.inputs}


def shape_of(port: Port, symbols: Mapping[str, int]) -> tuple[int, ...]:
    """The port's shape with its symbols replaced by their values."""
    return tuple(dim if isinstance(dim, int) else symbols[dim] for dim in port.dims)


def numpy_dtype(name: str) -> np.dtype:
    """The numpy dtype of a port's element type; bfloat16 needs the optional package ml_dtypes (BackendMissing)."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise BackendMissing("this bundle's caches are bfloat16, which numpy lacks: pip install ml_dtypes") from None
    found: np.dtype = np.dtype(ml_dtypes.bfloat16)
    return found


@functools.cache
def _name_of(dtype: np.dtype) -> str:
    """numpy works a dtype's name out anew every time, which one token's decoding would notice."""
    return str(dtype.name)


def check_arrays(
    ports: Iterable[Port],
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
