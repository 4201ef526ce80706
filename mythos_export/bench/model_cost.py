"""What a call must read and multiply at least, counted from the graph that the bundle ships.

Weights outside the loop count once per call, those of its body once per loop: it is met anew each time. Of a product
with weights every one counts for every row; of the routed experts only the chosen ones, K per token, and how many
different ones a batch of tokens chooses is the mean over uniform routing, E (1 - (1 - K/E)^n). Attention counts in the
form that multiplies less, absorbed or expanded. What an operator does is known by its name; of one that is not, the
weights are read.

    cost = GraphCost(bundle / "model.onnx")
    cost.call(workload, loops=8).bytes
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from mythos_export.bench.workloads import Workload
from mythos_model.formats import FORMATS, ROUNDED
from mythos_runtime.manifest import MIXED

FLOAT32_ARITHMETIC = ("fp32", MIXED, *(name for name in ROUNDED if not FORMATS[name].activations))
"""Precisions whose multiplications are float32."""

_T = onnx.TensorProto
_PER_VALUE = {
    getattr(_T, str(form.element).removeprefix("torch.").upper()): 8 // form.bits
    for form in FORMATS.values()
    if form.element is not None
}
"""Weights in a value, of the element types that rounded ones are stored in: two of four bits are in a byte."""
_FLOATS = (_T.FLOAT, _T.FLOAT16, _T.BFLOAT16, _T.DOUBLE)


@dataclass(frozen=True)
class Cost:
    """Bytes read, FLOPs (two per multiplication), the different bytes among those read, and the weights met."""

    bytes: float = 0.0
    flops: float = 0.0
    working_set: float = 0.0
    weights: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.working_set + other.working_set,
            self.weights + other.weights,
        )

    def repeated(self, times: int) -> Cost:
        """The same weights met several times."""
        return Cost(self.bytes * times, self.flops * times, self.working_set if times else 0.0, self.weights * times)


@dataclass(frozen=True)
class _Weight:
    """An initializer: its shape and element type as stored, its bytes, and the weights that it stands for."""

    dims: tuple[int, ...]
    kind: int
    bytes: int
    count: int

    @classmethod
    def of(cls, dims: Sequence[int], kind: int) -> _Weight:
        values, width = math.prod(dims), onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        return cls(tuple(dims), kind, values * width, values * _PER_VALUE.get(kind, 1))


def _linked(kind: onnx.TypeProto.Tensor) -> _Weight | None:
    """A graph takes weights of the user's own files as inputs: those whose size is fixed."""
    dims = [dim.dim_value for dim in kind.shape.dim]
    return _Weight.of(dims, kind.elem_type) if dims and all(dims) else None


class GraphCost:
    """The costs of a graph with one Loop."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path, load_external_data=False).graph
        stored = {t.name: _Weight.of(t.dims, t.data_type) for t in graph.initializer}
        linked = {v.name: _linked(v.type.tensor_type) for v in graph.input}
        weights = {name: weight for name, weight in {**linked, **stored}.items() if weight is not None}
        self._weights = {name: weight for name, weight in weights.items() if weight.kind in (*_FLOATS, *_PER_VALUE)}
        self._values: dict[str, onnx.TypeProto.Tensor] = {}
        self._nodes: dict[bool, list[onnx.NodeProto]] = {False: [], True: []}
        for scope, in_loop in _scopes(graph):
            self._values |= {v.name: v.type.tensor_type for v in (*scope.input, *scope.value_info, *scope.output)}
            for node in scope.node:
                if node.op_type == "Transpose" and node.input[0] in self._weights:  # linked weights lie as they are
                    self._weights[node.output[0]] = self._weights[node.input[0]]
                else:
                    self._nodes[in_loop].append(node)

    @property
    def weights(self) -> int:
        """All weights that the graph holds; tied ones count twice where they are there twice."""
        met = {id(weight): weight for node in (*self._nodes[False], *self._nodes[True]) for weight in self._met(node)}
        return sum(weight.count for weight in met.values())

    def call(self, workload: Workload, loops: int) -> Cost:
        """Of one call that runs `loops` loops: `fixed`, and as many times `loop`."""
        return self.fixed(workload) + self.loop(workload).repeated(loops)

    def fixed(self, workload: Workload) -> Cost:
        """What stands around the loop."""
        return sum((self._cost(node, workload) for node in self._nodes[False]), Cost())

    def loop(self, workload: Workload) -> Cost:
        """The loop's body once."""
        return sum((self._cost(node, workload) for node in self._nodes[True]), Cost())

    def _cost(self, node: onnx.NodeProto, workload: Workload) -> Cost:
        kind = node.op_type
        if kind in ("Gather", "embedding"):
            return self._lookup(node, workload)
        if kind == "moe":
            return self._experts(node, workload)
        if kind in ("MatMul", "Gemm", "linear"):
            return self._read(node) + Cost(flops=self._product(node, workload))
        if kind == "mla_attention":
            return self._read(node) + self._entries(node.input[4], workload) + Cost(flops=self._mla(node, workload))
        if kind == "gqa_attention":
            return self._read(node) + self._entries(node.input[3], workload) + Cost(flops=self._gqa(node, workload))
        return self._read(node)

    def _product(self, node: onnx.NodeProto, workload: Workload) -> float:
        x, out = (self._shape(name, workload) for name in (node.input[0], node.output[0]))
        if x and out:
            return 2 * math.prod(out) * x[-1]
        return 2 * workload.batch * workload.tokens * sum(weight.count for weight in self._met(node))

    def _lookup(self, node: onnx.NodeProto, workload: Workload) -> Cost:
        """Of a table the rows that are asked for are read, as if all were different."""
        weights = self._met(node)
        if not weights:
            return Cost()
        table = weights[0]
        rows = table.dims[0] * (table.dims[-1] * _PER_VALUE[table.kind] if table.kind in _PER_VALUE else 1)
        index = next(name for name in node.input if name not in self._weights)
        return self._read(node, share=min(1.0, math.prod(self._shape(index, workload)) / rows))

    def _experts(self, node: onnx.NodeProto, workload: Workload) -> Cost:
        """x and the chosen experts, then the routed experts' weights and those of the shared ones."""
        rows = workload.batch * workload.tokens
        chosen = self._shape(node.input[1], workload)[-1]
        rank = max(len(weight.dims) for weight in self._met(node))
        routed = [name for name in node.input if name in self._weights and len(self._weights[name].dims) == rank]
        experts = self._weights[routed[0]].dims[0]
        met = 1 - (1 - chosen / experts) ** rows
        cost = self._read(node, share=met, names=routed)
        cost += self._read(node, names=[name for name in node.input if name not in routed])
        counts = {name: weight.count for name, weight in self._named(node).items()}
        per_row = sum(count * chosen / experts if name in routed else count for name, count in counts.items())
        return Cost(cost.bytes, 2 * rows * per_row, cost.working_set, per_row)

    def _entries(self, chunk: str, workload: Workload) -> Cost:
        """Cache lines of the past and of the new tokens, as wide as those [B, T, C]."""
        width = self._shape(chunk, workload)[-1] * _width(self._values[chunk].elem_type)
        read = workload.batch * (workload.held + workload.tokens) * width
        return Cost(read, 0, read)

    def _mla(self, node: onnx.NodeProto, workload: Workload) -> float:
        """q_nope [B, T, H, nope], q_rope [B, T, H, P], past, layer, chunk [B, T, R + P], ... -> [B, T, H * v]."""
        heads, nope = self._shape(node.input[0], workload)[2:]
        rope = self._shape(node.input[1], workload)[3]
        R, v = self._shape(node.input[4], workload)[2] - rope, self._shape(node.output[0], workload)[2] // heads
        up, pairs = heads * (nope + v) * R, heads * _pairs(workload)
        absorbed = workload.batch * workload.tokens * up + pairs * (2 * R + rope)
        expanded = workload.batch * (workload.held + workload.tokens) * up + pairs * (nope + rope + v)
        return 2 * min(absorbed, expanded)

    def _gqa(self, node: onnx.NodeProto, workload: Workload) -> float:
        """q [B, T, H, width]."""
        heads, width = self._shape(node.input[0], workload)[2:]
        return 4 * _pairs(workload) * heads * width

    def _read(self, node: onnx.NodeProto, share: float = 1.0, names: Sequence[str] | None = None) -> Cost:
        """A share of the weights that a node is given, or of some of them."""
        given = [name for name in (node.input if names is None else names) if name in self._weights]
        read = share * sum(self._weights[name].bytes for name in given)
        counted = self._named(node)
        return Cost(read, 0, read, share * sum(counted[name].count for name in given if name in counted))

    def _named(self, node: onnx.NodeProto) -> dict[str, _Weight]:
        """The weights that a node is given: where some are rounded, the floats beside them are their scales."""
        given = {name: self._weights[name] for name in node.input if name in self._weights}
        rounded = {name: weight for name, weight in given.items() if weight.kind in _PER_VALUE}
        return rounded or given

    def _met(self, node: onnx.NodeProto) -> list[_Weight]:
        return list(self._named(node).values())

    def _shape(self, name: str, workload: Workload) -> list[int]:
        """Of a value, empty where the graph does not tell; a size that is open is that of its place, [B, T, ...]."""
        dims = [dim.dim_value for dim in self._values[name].shape.dim] if name in self._values else []
        places = [workload.batch, workload.tokens]
        if len(dims) == 2 and dims[1]:
            places = [workload.batch * workload.tokens]
        return [dim or (places[place] if place < len(places) else 1) for place, dim in enumerate(dims)]


def _pairs(workload: Workload) -> int:
    """Pairs of a new token and one that it attends to."""
    T = workload.tokens
    return workload.batch * (T * workload.held + T * (T + 1) // 2)


def _width(kind: int) -> int:
    width: int = onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return width


def _scopes(graph: onnx.GraphProto, in_loop: bool = False) -> Iterator[tuple[onnx.GraphProto, bool]]:
    """The graph and those within its nodes, and whether they are run once per loop."""
    yield graph, in_loop
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _scopes(attribute.g, in_loop or node.op_type == "Loop")
