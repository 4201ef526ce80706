"""What the ONNX file tells before TensorRT sees it: its inputs, and the constructs that would not build.

The checks here are the ones where TensorRT's own message would not say what is wrong (or would be a crash).
Weights are never loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mythos_export.errors import TargetError

from .limits import TURING, Limit
from .profiles import Dims

_CACHE_INPUT = "past_layers"
#: Element types of the cache that each precision name stands for; int8 and int4 are about weights only.
_CACHE_TYPES = {
    "fp32": {onnx.TensorProto.FLOAT},
    "fp16": {onnx.TensorProto.FLOAT16},
    "bf16": {onnx.TensorProto.BFLOAT16},
}
_MATRIX_PRODUCTS = {"MatMul", "Gemm", "Einsum"}


@dataclass(frozen=True)
class _Scope:
    graph: onnx.GraphProto
    in_loop: bool


def load_graph(path: Path) -> onnx.ModelProto:
    """The model without its external weights. Raises `TargetError` if it is missing or no ONNX file."""
    if not path.is_file():
        raise TargetError(f"there is no ONNX file {path}; export one first (mythos-export ... --target onnx)")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise TargetError(f"{path} is not an ONNX file ({error}); export it again") from error
    if not model.graph.node:
        raise TargetError(f"{path} holds no graph (it has no nodes); export it again")
    return model


def graph_inputs(model: onnx.ModelProto) -> list[tuple[str, Dims]]:
    """(name, dims) of every graph input; a dim is a number, or a name for a dynamic one ('?' if it has no name)."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    found: list[tuple[str, Dims]] = []
    for value in model.graph.input:
        if value.name not in initializers:
            dims = value.type.tensor_type.shape.dim
            found.append((value.name, tuple(_dim(dim) for dim in dims)))
    return found


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    return dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")


def _scopes(graph: onnx.GraphProto, in_loop: bool = False) -> Iterator[_Scope]:
    yield _Scope(graph, in_loop)
    for node in graph.node:
        for attribute in node.attribute:
            inside = in_loop or (node.op_type in ("Loop", "Scan") and node.domain == "")
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _scopes(attribute.g, inside)


def _label(node: onnx.NodeProto) -> str:
    return node.name or (f"the {node.op_type} that makes {node.output[0]!r}" if node.output else node.op_type)


def operator_limits(model: onnx.ModelProto) -> list[Limit]:
    """Operators of the graph that TensorRT-RTX cannot build where they stand."""
    found = []
    for scope in _scopes(model.graph):
        for node in scope.graph.node:
            if node.domain not in ("", "ai.onnx"):
                continue
            if node.op_type == "NonZero":
                reason, instead = "TensorRT-RTX has no kernel for it", "the dense or the TopK + Gather form of the MoE"
            elif node.op_type == "Attention" and scope.in_loop:
                reason = "TensorRT's IAttention cannot be built in a Loop body"
                instead = "MatMul + Softmax in the body"
            elif node.op_type == "TensorScatter" and scope.in_loop:
                reason = "a KV cache update works on network inputs only, not in a Loop body"
                instead = "a carried stack written by Where(depth == iteration, new, old)"
            else:
                continue
            found.append(Limit(f"{node.op_type} ({_label(node)})", reason, instead))
    return found


def turing_limits(model: onnx.ModelProto) -> list[Limit]:
    """Matrix products that are certainly float32, as a lower bound of what SM 75 refuses; TensorRT finds the rest."""
    floats: set[str] = set()
    products: list[onnx.NodeProto] = []
    for scope in _scopes(model.graph):
        floats |= {t.name for t in scope.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        for node in scope.graph.node:
            if node.op_type == "Cast" and any(a.name == "to" and a.i == onnx.TensorProto.FLOAT for a in node.attribute):
                floats.add(node.output[0])
            if node.op_type in _MATRIX_PRODUCTS and node.domain == "":
                products.append(node)
    found = [_label(node) for node in products if any(name in floats for name in node.input)]
    if not found:
        return []
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return [
        Limit(
            f"SM {TURING} with float32 matrix products ({', '.join(found[:3])}{more})",
            "TensorRT-RTX has no fp32 matrix product there",
            "lower those products to Mul + ReduceSum, or leave 75 out of --sm",
        )
    ]


def check_external_data(model: onnx.ModelProto, folder: Path) -> None:
    """TensorRT's parser reads external data at any byte offset, but only under these rules; the first break raises.

    1 the location is a relative path below the ONNX file's folder; 2 the file is there and long enough; 3 offset and
    length are stated; 4 a tensor with no elements is inline (the parser gives it a pointer, and then refuses it).
    """
    for scope in _scopes(model.graph):
        for tensor in scope.graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                problem = _external_problem(tensor, folder)
                if problem:
                    raise TargetError(
                        f"initializer {tensor.name!r}: {problem}; TensorRT cannot read it, package the bundle again"
                    )


def _external_problem(tensor: onnx.TensorProto, folder: Path) -> str | None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries.get("location", ""))
    if 0 in tensor.dims:
        return "it has no elements and is stored as external data (store it inline)"
    if not entries.get("length"):
        return "its external data states no length"
    if location.is_absolute() or ".." in location.parts or not location.parts:
        return f"its location {str(location)!r} is not a relative path below the ONNX file's folder"
    file = folder / location
    if not file.is_file():
        return f"its file {location} is missing"
    end = int(entries.get("offset") or 0) + int(entries["length"])
    size = file.stat().st_size
    return f"it ends at byte {end} of {location}, which has {size}" if end > size else None


def check_graph(model: onnx.ModelProto, path: Path, *, precision: str, sms: Iterable[int], rtx: bool) -> None:
    """Raises `TargetError` for a graph that cannot be built for these targets, before TensorRT starts."""
    check_external_data(model, path.parent)
    if precision in _CACHE_TYPES:
        for value in model.graph.input:
            kind = value.type.tensor_type.elem_type
            if value.name == _CACHE_INPUT and kind not in _CACHE_TYPES[precision]:
                name = onnx.TensorProto.DataType.Name(kind)
                raise TargetError(
                    f"precision {precision} was asked for, but {path.name} has a {name} cache ({_CACHE_INPUT}); "
                    f"TensorRT takes precision from the graph: lower the graph to {precision}, or ask for what it has"
                )
    if rtx:
        limits = operator_limits(model) + (turing_limits(model) if TURING in set(sms) else [])
        if limits:
            raise TargetError(" ".join(f"cannot build {limit}" for limit in limits[:5]))
