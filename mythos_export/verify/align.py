"""Which node of the captured program an ONNX node came from.

Names do not tell: torch.onnx rewrites the program before it converts it. But both list the same computation in the
same order, so the longest common run of operator kinds pairs them up.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from onnx import NodeProto
from torch import fx

from mythos_export.kernels.op import OPERATORS

A = TypeVar("A")
B = TypeVar("B")

# torch operator -> the ONNX operator that computes the same, where it is one.
_KINDS = {
    "add": "Add",
    "bitwise_not": "Not",
    "cat": "Concat",
    "cos": "Cos",
    "embedding": "Gather",
    "exp": "Exp",
    "gather": "GatherElements",
    "ge": "GreaterOrEqual",
    "index_put": "ScatterND",
    "index_select": "Gather",
    "largest": "TopK",
    "linear": "MatMul",
    "matmul": "MatMul",
    "mul": "Mul",
    "neg": "Neg",
    "reciprocal": "Reciprocal",
    "rms_norm": "RMSNormalization",
    "rotary_embedding": "RotaryEmbedding",
    "rsub": "Sub",
    "sin": "Sin",
    "softmax": "Softmax",
    "sum": "ReduceSum",
    "where": "Where",
}


def align(onnx_nodes: Iterable[NodeProto], program: fx.Graph) -> dict[str, fx.Node]:
    """ONNX value -> the program's node that computes it, for the values that have one."""
    calls = [node for node in program.nodes if node.op == "call_function" and kind(node)]
    pairs: dict[str, fx.Node] = {}
    for onnx_node, node in _alike(list(onnx_nodes), calls, lambda node: node.op_type, kind):
        if onnx_node.op_type == "TopK":  # two results; the trace compares both
            continue
        if isinstance(node.meta["val"], tuple):
            parts = [part for part in node.users if part.target is operator.getitem]
            pairs |= {onnx_node.output[part.args[1]]: part for part in parts}
        else:
            pairs[onnx_node.output[0]] = node
    return pairs


def align_rows(rows: Iterable[NodeProto], portable: Iterable[NodeProto]) -> dict[str, str]:
    """Value of a row graph -> the value of the portable graph that is the same for a batch of tokens."""

    def kind_of(node: NodeProto) -> str:  # rows are a matrix, which Gemm takes
        return "MatMul" if node.op_type == "Gemm" else node.op_type.removeprefix("paged_")

    return {ours.output[0]: theirs.output[0] for ours, theirs in _alike(list(rows), list(portable), kind_of, kind_of)}


def _alike(
    ours: list[A], theirs: list[B], kind_a: Callable[[A], str], kind_b: Callable[[B], str]
) -> Iterator[tuple[A, B]]:
    """Pairs of nodes by the longest common runs of operator kinds."""
    matcher = difflib.SequenceMatcher(None, [kind_a(a) for a in ours], [kind_b(b) for b in theirs], autojunk=False)
    for block in matcher.get_matching_blocks():
        yield from zip(ours[block.a : block.a + block.size], theirs[block.b : block.b + block.size], strict=True)


def kind(node: fx.Node) -> str:
    """The ONNX operator of a program's node, or an empty string."""
    space, name = _name(node.target)
    return name if space == "mythos" and name in OPERATORS else _KINDS.get(name, "")


def describe_node(node: NodeProto) -> str:
    """An ONNX node for people: mythos::moe (node_moe) -> moe."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{operator} ({node.name or 'unnamed'}) -> {', '.join(node.output)}"


def describe_program(node: fx.Node) -> str:
    """A program's node for people: linear(mla_attention, ...) with what it reads."""
    return f"{_name(node.target)[1]}({', '.join(argument.name for argument in node.all_input_nodes)}) -> {node.name}"


def _name(target: Any) -> tuple[str, str]:
    """Namespace and name of an operator; of operator.getitem and the like, which have no schema, only the name."""
    schema = getattr(target, "_schema", None)
    if schema is None:
        return "", str(getattr(target, "__name__", target))
    space, _, name = str(schema.name).partition("::")
    return space, name
