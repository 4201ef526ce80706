"""What TensorRT has to know of an operator: its inputs' types, its output's shape, and what its launch plans ask for.

Plain data, like the plans: nothing here imports torch, triton or a TensorRT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mythos_export.kernels.launch_plan import Sizes, evaluate

Extent = TypeVar("Extent")
Attributes = Mapping[str, int | float]


@dataclass(frozen=True)
class Input:
    """A tensor that an operator takes: a name for each of its extents, and int64 instead of the operator's floats."""

    name: str
    extents: tuple[str, ...]
    integer: bool = False


@dataclass(frozen=True)
class PluginRecord:
    """An operator as a plug-in.

    Attributes:
        operator: its name in the domain `mythos`, which TensorRT takes for the plug-in's namespace.
        inputs: in the operator's order; extents of one name are equal.
        attributes: names and Python types of the node's attributes.
        output: each extent of the result as a product of names of extents and integer attributes.
        sizes: what the launch plans call their sizes, each an expression over extents and attributes.
    """

    operator: str
    inputs: tuple[Input, ...]
    attributes: tuple[tuple[str, type], ...]
    output: tuple[tuple[str, ...], ...]
    sizes: Mapping[str, str]

    def bind(self, shapes: Sequence[Sequence[Extent]]) -> dict[str, Extent]:
        """Extents by name, from the inputs' shapes; where a name occurs twice, the first counts."""
        bound: dict[str, Extent] = {}
        for given, shape in zip(self.inputs, shapes, strict=True):
            if len(shape) != len(given.extents):
                expected = ", ".join(given.extents)
                raise ValueError(
                    f"mythos::{self.operator}: {given.name} has {len(shape)} dimensions, expected [{expected}]"
                )
            for name, extent in zip(given.extents, shape, strict=True):
                bound.setdefault(name, extent)
        return bound

    def sizes_of(self, shapes: Sequence[Sequence[int]], attributes: Attributes) -> Sizes:
        """The plans' sizes of a call; ValueError where the shapes do not fit each other."""
        bound = self.bind(shapes)
        for given, shape in zip(self.inputs, shapes, strict=True):
            if list(shape) != [bound[name] for name in given.extents]:
                expected = ", ".join(f"{name}={bound[name]}" for name in given.extents)
                raise ValueError(
                    f"mythos::{self.operator}: {given.name} has the shape {list(shape)}, expected [{expected}]"
                )
        known = {**bound, **attributes}
        return {name: evaluate(expression, known) for name, expression in self.sizes.items()}
