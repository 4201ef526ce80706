"""How the GPU kernels of an operator are called: plain data that needs neither triton nor a GPU.

A `Plan` is one way to compute one operator for one set of sizes: scratch buffers, then kernels in order. The eager
wrappers execute it (`triton_run.execute`), the ahead-of-time build compiles its kernels and writes it into the manifest
(`triton_build`), so the rule that the launcher in C++ follows is the rule that the tests ran.

Expressions (grids, shapes, scalar arguments) are Python integer arithmetic over named sizes and a kernel's constants,
with `cdiv`, `min` and `max`:

    >>> evaluate("cdiv(T * heads, 16)", {"T": 3, "heads": 8})
    2
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import CodeType
from typing import Any

Sizes = Mapping[str, int | float]

POINTER_ALIGNMENT = 16
"""Bytes that every pointer handed to a kernel is a multiple of, and the factor that `Argument.divisible` promises."""

PRECISIONS = ("fp32", "fp16", "bf16")

LEAST_SM = {"fp8": 89}
"""The least compute capability of weight formats that not every GPU has instructions for."""


VARIABLE = "MYTHOS_TRITON"
"""Set to "none", the operators stay plain PyTorch."""


def cdiv(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def next_power_of_2(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and at least `least`: what a block's side may be."""
    return max(least, 1 << max(n - 1, 0).bit_length())


def least_sm(constants: Mapping[str, int | bool | str]) -> tuple[str, int]:
    """The format of weights that a kernel with these constants reads, if a GPU needs instructions of its own for it,
    and the least compute capability that has them; "" and 0 where any has."""
    return ("fp8", LEAST_SM["fp8"]) if constants.get("FLOAT8") else ("", 0)


_FUNCTIONS = {"__builtins__": {}, "cdiv": cdiv, "min": min, "max": max}
_GRAMMAR = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.BinOp, ast.Compare),
    *(ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq),
)


@functools.cache
def _compiled(expression: str) -> CodeType:
    """ValueError for what is not of the grammar: they may come from a file."""
    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is no expression: {error}") from None
    for node in ast.walk(tree):
        call = isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS)
        if not isinstance(node, _GRAMMAR) or call or (isinstance(node, ast.Constant) and type(node.value) is not int):
            raise ValueError(
                f"{expression!r} holds {ast.unparse(node)!r}; expected integers, names, + - * //, comparisons, cdiv, "
                "min and max"
            )
    return compile(tree, expression, "eval")


def evaluate(expression: str, sizes: Sizes) -> Any:
    """The value of an expression of this module's grammar; ValueError where it is not of it."""
    return eval(_compiled(expression), dict(_FUNCTIONS), dict(sizes))


@dataclass(frozen=True)
class Argument:
    """A run-time parameter of a kernel.

    Attributes:
        name: the kernel's name for it.
        type: Triton's: "*fp16" is a pointer, "i32", "i64" and "fp32" are scalars.
        value: a pointer's buffer (an input of the operator, a scratch buffer, or "out"), a scalar's expression.
        divisible: the scalar is always a multiple of `POINTER_ALIGNMENT`; pointers always are.
    """

    name: str
    type: str
    value: str
    divisible: bool = False

    @property
    def is_pointer(self) -> bool:
        return self.type.startswith("*")


@dataclass(frozen=True)
class KernelSpec:
    """One kernel, compiled for one set of constants.

    Attributes:
        name: unique among the kernels of all plans; the stem of its files.
        operator: the operator of `mythos_export.kernels.op.OPERATORS` it belongs to.
        source: "module:function".
        precision: of the operator's floats.
        arguments: run-time parameters in the kernel's order.
        constants: compile-time parameters.
        grid: three expressions, programs along x, y and z.
        num_warps: warps of 32 threads in a block.
        num_stages: depth of Triton's software pipeline.
    """

    name: str
    operator: str
    source: str
    precision: str
    arguments: tuple[Argument, ...]
    constants: Mapping[str, int | bool | str]
    grid: tuple[str, str, str]
    num_warps: int = 4
    num_stages: int = 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> KernelSpec:
        arguments = tuple(Argument(**argument) for argument in values["arguments"])
        return cls(**{**values, "arguments": arguments, "grid": tuple(values["grid"])})


@dataclass(frozen=True)
class Scratch:
    """A temporary buffer, uninitialised: element type as in `Argument.type` without the star, and a shape."""

    name: str
    type: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """One way to compute one operator.

    Attributes:
        operator: its name; the inputs are the operator's own, the result is the buffer "out".
        variant: the sizes that it is for, of all calls of the operator; what tells its plans from those for others.
        path: what it is for: "decode", "prefill", or a form of one of them.
        when: expression over `sizes`; of a variant's plans the first that holds is taken.
        sizes: what the caller states: names of integers (and attributes) of this call.
        derived: further sizes, each an expression over those before it.
        scratch: buffers to allocate.
        launches: kernels in order; each may read what those before it wrote.
    """

    operator: str
    variant: str
    path: str
    when: str
    sizes: tuple[str, ...]
    derived: tuple[tuple[str, str], ...]
    scratch: tuple[Scratch, ...]
    launches: tuple[KernelSpec, ...]

    def resolve(self, sizes: Sizes) -> dict[str, int | float]:
        """The stated and the derived sizes."""
        resolved = dict(sizes)
        for name, expression in self.derived:
            resolved[name] = evaluate(expression, resolved)
        return resolved

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it: kernels by name."""
        return {
            "operator": self.operator,
            "variant": self.variant,
            "path": self.path,
            "when": self.when,
            "sizes": list(self.sizes),
            "derived": [{"name": name, "value": value} for name, value in self.derived],
            "scratch": [asdict(buffer) for buffer in self.scratch],
            "launches": [spec.name for spec in self.launches],
        }


def choose(plans: tuple[Plan, ...], sizes: Sizes) -> Plan:
    """The first plan whose condition holds; the last one's always does."""
    return next(plan for plan in plans if evaluate(plan.when, plan.resolve(sizes)))


def pointer(name: str, element: str, value: str | None = None) -> Argument:
    """A pointer argument; its buffer has the same name unless `value` says otherwise."""
    return Argument(name, f"*{element}", value or name)
