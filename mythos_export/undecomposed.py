"""A captured program that torch.onnx converts as it is.

Before its conversion torch.onnx traces a program once more, to take apart the operators that it has no translation of:
half of the time that a small model is converted in. A program whose operators all have one is spared that. Of what
PyTorch takes apart, models use a few operators; those that torch.onnx does not have are translated here. A translation
refuses, by UntranslatedError, what it does not compute as PyTorch does; such a program is taken apart after all.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from mythos_export.kernels.text import OPSET

op = getattr(onnxscript, f"opset{OPSET}")
aten = torch.ops.aten

# PyTorch takes these apart, torch.onnx has a translation of the whole.
_WHOLE: frozenset[OpOverload] = frozenset(
    (
        aten.arange.default,
        aten.linear.default,
        aten.matmul.default,
        aten.new_zeros.default,
        aten.ones_like.default,
        aten.silu.default,
        aten.softmax.int,
        aten.softplus.default,
        aten.stack.default,
        aten.sym_size.int,
        aten.zeros.default,
        aten.zeros_like.default,
    )
)


_CASTS = (aten.to.dtype, aten.to.device)
_NOTHING = (aten.detach_.default, aten.lift_fresh_copy.default)  # but to PyTorch's memory and gradients


class UntranslatedError(Exception):
    """A call that is not translated here, though others of its operator are."""


def to_dtype(x: Any, dtype: int, *_: Any) -> Any:
    """aten::to.dtype."""
    return op.Cast(x, to=dtype)


def to_device(x: Any, _: Any, dtype: int, *__: Any) -> Any:
    """aten::to.device; a graph has no devices."""
    return op.Cast(x, to=dtype)


def unflatten(x: Any, dim: int, sizes: Any) -> Any:
    """aten::unflatten.int: an axis as several, of which one may be -1."""
    dim %= len(x.shape)
    return _with_axes(x, dim, dim, [_length(x, dim, size, sizes) for size in sizes])


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """aten::flatten.using_ints: several axes as one."""
    start_dim, end_dim = start_dim % len(x.shape), end_dim % len(x.shape)
    return _with_axes(x, start_dim, end_dim, [op.ReduceProd(op.Shape(x, start=start_dim, end=end_dim + 1))])


def _with_axes(x: Any, first: int, last: int, lengths: list[Any]) -> Any:
    """x with axes of these lengths, each a tensor of one element, in place of its own from `first` to `last`."""
    if first > 0:
        lengths.insert(0, op.Shape(x, end=first))
    if last < len(x.shape) - 1:
        lengths.append(op.Shape(x, start=last + 1))
    return op.Reshape(x, op.Concat(*lengths, axis=0), allowzero=1)


def _length(x: Any, dim: int, size: Any, sizes: Any) -> Any:
    """Of an axis among those that `dim` becomes. -1 is computed: Reshape could not, where another axis is empty."""
    if not isinstance(size, int):  # a scalar of the graph
        return op.Reshape(size, op.Constant(value_ints=[1]))
    if size != -1:
        return op.Constant(value_ints=[size])
    if not all(isinstance(each, int) for each in sizes):
        raise UntranslatedError("what is left over of an axis beside sizes of the graph")
    others = math.prod(each for each in sizes if each != -1)
    if isinstance(x.shape[dim], int):
        return op.Constant(value_ints=[x.shape[dim] // others])
    return op.Div(op.Shape(x, start=dim, end=dim + 1), op.Constant(value_ints=[others]))


def both(a: Any, b: Any) -> Any:
    """aten::__and__."""
    _alike(a, b)
    return op.And(a, b) if a.dtype == ir.DataType.BOOL else op.BitwiseAnd(a, b)


def either(a: Any, b: Any) -> Any:
    """aten::__or__."""
    _alike(a, b)
    return op.Or(a, b) if a.dtype == ir.DataType.BOOL else op.BitwiseOr(a, b)


def _alike(a: Any, b: Any) -> None:
    if a.dtype != b.dtype:
        raise UntranslatedError(f"{a.dtype} and {b.dtype}")


def subtracted_from(x: Any, other: Any, alpha: Any = 1) -> Any:
    """aten::rsub.Scalar: other - alpha x."""
    if not isinstance(other, int | float) or not isinstance(alpha, int | float):
        raise UntranslatedError("a size of the graph less a tensor")
    if isinstance(other, float) and not x.dtype.is_floating_point():
        x = op.Cast(x, to=ir.tensor_adapters.from_torch_dtype(torch.get_default_dtype()))
    return op.Sub(_like(other, x), x if alpha == 1 else op.Mul(x, _like(alpha, x)))


def _like(number: float, x: Any) -> Any:
    return op.CastLike(op.Constant(value=ir.serde.serialize_tensor(ir.tensor(np.array(number)))), x)


def square(x: Any) -> Any:
    """aten::square."""
    return op.Mul(x, x)


def itself(x: Any) -> Any:
    """What computes nothing, where it is a result."""
    return op.Identity(x)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """torch operator -> its translation, as torch.onnx.export takes them."""
    return {
        aten.to.dtype: to_dtype,
        aten.to.device: to_device,
        aten.unflatten.int: unflatten,
        aten.flatten.using_ints: flatten,
        aten.rsub.Scalar: subtracted_from,
        aten.square.default: square,
        aten.__and__.Tensor: both,
        aten.__or__.Tensor: either,
        aten.detach_.default: itself,
        aten.lift_fresh_copy.default: itself,
    }


def convert(
    program: ExportedProgram, own: Mapping[Callable[..., Any], Callable[..., Any]], **options: Any
) -> torch.onnx.ONNXProgram | None:
    """torch.onnx.export of a program: as it is where that can be, else as torch.onnx takes it apart.

    Args:
        own: translations of the caller's operators.
        options: of torch.onnx.export.
    """
    table = {**own, **translations()}
    whole = undecomposed(program, table)
    if whole is not program:
        # A call that no translation takes, or an operator that torch.onnx has none of, it may well take apart; if not,
        # its error of the second time is the one to tell.
        with contextlib.suppress(torch.onnx.OnnxExporterError):
            return torch.onnx.export(whole, dynamo=True, custom_translation_table=table, **options)
    return torch.onnx.export(program, dynamo=True, custom_translation_table=dict(own), **options)


def undecomposed(program: ExportedProgram, translated: Container[Callable[..., Any]]) -> ExportedProgram:
    """The program, as torch.onnx is to be given it: it is not taken apart unless it holds an operator that has to be.

    Args:
        translated: operators with a translation of their own.
    """
    apart = torch.export.default_decompositions()
    for target in _operators(program):
        if target in translated or target in _WHOLE:
            continue
        composite = target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
        if composite or target in apart or target._schema.is_mutable:
            return program
    graph_module = copy.deepcopy(program.graph_module)  # it is changed, here and on the way
    for module in _graphs(graph_module):
        _drop_what_changes_nothing(module.graph)
    return _Undecomposed(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


class _Undecomposed(ExportedProgram):
    def run_decompositions(self, *_: Any, **__: Any) -> ExportedProgram:
        """There is nothing to take apart."""
        return self


def _operators(program: ExportedProgram) -> Iterator[OpOverload]:
    for module in _graphs(program.graph_module):
        yield from (node.target for node in module.graph.nodes if isinstance(node.target, OpOverload))


def _graphs(graph_module: fx.GraphModule) -> Iterator[fx.GraphModule]:
    """It, and those of its loops."""
    return (module for module in graph_module.modules() if isinstance(module, fx.GraphModule))


def _drop_what_changes_nothing(graph: fx.Graph) -> None:
    """As torch.onnx would by tracing. Else a weight that such a node is given is no longer found by its name."""
    for node in list(graph.nodes):
        same = node.target in _CASTS and node.meta["val"].dtype == node.args[0].meta["val"].dtype
        if (same or node.target in _NOTHING) and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
