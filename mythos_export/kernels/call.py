"""What a graph says of one node of the `mythos` domain: bodies and kernels are made for that, whatever the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from mythos_export.kernels.text import DOMAIN
from mythos_model.formats import PLAIN

Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator.

    Attributes:
        operator: its name, without the domain.
        attributes: as the node has them.
        shapes: of its inputs, by name; None for a dimension that the call decides. An input that the node leaves out,
            or whose rank is not known, is not there.
    """

    operator: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Dims] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """How its weights are stored (`mythos_model.formats`)."""
        return str(self.attributes.get("format", PLAIN))

    @property
    def packed(self) -> bool:
        """Whether it has a cache of int8 pages (`mythos_model.cache_lines`), which scales make wider than an entry."""
        entry, cache = (self.shapes.get(name, (None,))[-1] for name in ("entry", "cache"))
        return entry is not None and cache is not None and entry != cache

    @property
    def label(self) -> str:
        """For manifests and people: mythos::moe, or mythos::moe (int8); of a cache, (int8 pages)."""
        how = "int8 pages" if self.packed else self.format
        return f"{DOMAIN}::{self.operator}" + (f" ({how})" if how != PLAIN else "")

    def size(self, name: str, axis: int) -> int:
        """The size of an input's dimension.

        Raises:
            ValueError: the graph does not say it.
        """
        shape = self.shapes.get(name, ())
        size = shape[axis] if -len(shape) <= axis < len(shape) else None
        if size is None:
            raise ValueError(
                f"the graph does not say the size of dimension {axis} of {DOMAIN}::{self.operator}'s {name}, whose "
                f"shape is {list(shape)}; expected a number"
            )
        return size


def call_of(node: ir.Node, inputs: tuple[str, ...]) -> OperatorCall:
    """What a node says of itself; `inputs` are the names of its operator's inputs, in order."""
    shapes = {
        name: tuple(dim if isinstance(dim, int) else None for dim in value.shape)
        for name, value in zip(inputs, node.inputs, strict=False)
        if value is not None and value.shape is not None
    }
    return OperatorCall(node.op_type, {name: attr.value for name, attr in node.attributes.items()}, shapes)
