"""What every layer type of TensorRT means, in numpy. Arithmetic on half precision is done in float32 and rounded.

A maker takes the layer (of its own class) and the TensorRT module and returns a function from input arrays (None where
an optional input is absent) to output arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

Arrays = Sequence[Any]
Compute = Callable[[Arrays], Sequence[Any]]
Maker = Callable[[Any, ModuleType], Compute]


class UnknownLayer(Exception):
    """A layer, or a mode of one, that the interpreter does not know."""


def wide(x: np.ndarray) -> np.ndarray:
    """Half precision as float32, everything else as it is."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 and x.dtype.kind in "fV" else x


def _constant(layer: Any, trt: ModuleType) -> Compute:
    shape, weights = tuple(layer.shape), layer.weights
    if not isinstance(weights, np.ndarray):
        raise UnknownLayer(f"constant {layer.name}: TensorRT does not give back weights of {weights.dtype}")
    value = weights.reshape(shape)
    return lambda a: [value]


def _elementwise(layer: Any, trt: ModuleType) -> Compute:
    op = trt.ElementWiseOperation
    table = {
        op.SUM: np.add,
        op.PROD: np.multiply,
        op.MAX: np.maximum,
        op.MIN: np.minimum,
        op.SUB: np.subtract,
        op.DIV: _divide,
        op.POW: np.power,
        op.FLOOR_DIV: np.floor_divide,
        op.AND: np.logical_and,
        op.OR: np.logical_or,
        op.XOR: np.logical_xor,
        op.EQUAL: np.equal,
        op.GREATER: np.greater,
        op.LESS: np.less,
    }
    compute = _look_up(table, layer.op, layer)
    return lambda a: [compute(a[0], a[1])]


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "iu":  # rounds towards zero, as C does
        quotient: np.ndarray = np.trunc(x / np.where(y == 0, 1, y))
        return quotient
    exact: np.ndarray = np.divide(x, y)
    return exact


def _unary(layer: Any, trt: ModuleType) -> Compute:
    op = trt.UnaryOperation
    table = {
        op.NOT: np.logical_not,
        op.EXP: np.exp,
        op.LOG: np.log,
        op.SQRT: np.sqrt,
        op.RECIP: np.reciprocal,
        op.NEG: np.negative,
        op.ABS: np.abs,
        op.SIN: np.sin,
        op.COS: np.cos,
        op.CEIL: np.ceil,
        op.FLOOR: np.floor,
        op.ROUND: np.rint,
        op.SIGN: np.sign,
        op.ISNAN: np.isnan,
        op.ISINF: np.isinf,
        op.ERF: np.vectorize(math.erf, otypes=[np.float32]),
    }
    compute = _look_up(table, layer.op, layer)
    return lambda a: [compute(wide(a[0]))]


def _activation(layer: Any, trt: ModuleType) -> Compute:
    kind = trt.ActivationType
    table: dict[Any, Callable[[Any], Any]] = {
        kind.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
        kind.TANH: np.tanh,
        kind.RELU: lambda x: np.maximum(x, 0),
    }
    if layer.type == getattr(kind, "CLIP", None):
        low, high = layer.alpha, layer.beta
        return lambda a: [np.clip(wide(a[0]), low, high)]
    compute = _look_up(table, layer.type, layer)
    return lambda a: [compute(wide(a[0]))]


def _softmax(layer: Any, trt: ModuleType) -> Compute:
    axes = layer.axes

    def compute(a: Arrays) -> Arrays:
        x, axis = wide(a[0]), _axes(axes, a[0].ndim)
        powers = np.exp(x - x.max(axis, keepdims=True))
        return [powers / powers.sum(axis, keepdims=True)]

    return compute


def _reduce(layer: Any, trt: ModuleType) -> Compute:
    op = trt.ReduceOperation
    table: dict[Any, Callable[..., Any]] = {
        op.SUM: np.sum,
        op.PROD: np.prod,
        op.MAX: np.max,
        op.MIN: np.min,
        op.AVG: np.mean,
    }
    compute, axes, keep = _look_up(table, layer.op, layer), layer.axes, layer.keep_dims
    return lambda a: [compute(wide(a[0]), axis=_axes(axes, a[0].ndim), keepdims=keep)]


def _matrix_multiply(layer: Any, trt: ModuleType) -> Compute:
    operation = trt.MatrixOperation

    def turn(how: Any) -> Callable[[np.ndarray], np.ndarray]:
        if how == operation.TRANSPOSE:
            return lambda x: x.swapaxes(-1, -2)
        if how == operation.VECTOR:
            raise UnknownLayer(f"{layer.name}: a matrix product with a vector")
        return lambda x: x

    left, right = turn(layer.op0), turn(layer.op1)
    return lambda a: [left(wide(a[0])) @ right(wide(a[1]))]


def _einsum(layer: Any, trt: ModuleType) -> Compute:
    equation = layer.equation
    return lambda a: [np.einsum(equation, *(wide(x) for x in a))]


def _concatenation(layer: Any, trt: ModuleType) -> Compute:
    axis = layer.axis
    return lambda a: [np.concatenate(a, axis)]


def _shuffle(layer: Any, trt: ModuleType) -> Compute:
    first, second = tuple(layer.first_transpose), tuple(layer.second_transpose)
    placeholder, fixed = layer.zero_is_placeholder, None
    if layer.num_inputs < 2:
        fixed = _dims(layer.reshape_dims)

    def compute(a: Arrays) -> Arrays:
        x = a[0].transpose(first[: a[0].ndim])
        target = fixed if len(a) < 2 or a[1] is None else [int(value) for value in a[1]]
        if target is not None:
            if placeholder:
                target = [x.shape[index] if size == 0 else size for index, size in enumerate(target)]
            x = x.reshape(target)
        return [x.transpose(second[: x.ndim])]

    return compute


def _slice(layer: Any, trt: ModuleType) -> Compute:
    fixed = [_dims(part) for part in (layer.start, layer.shape, layer.stride)]
    fixed_axes, mode = _dims(layer.axes), layer.mode
    if mode not in (trt.SampleMode.STRICT_BOUNDS, trt.SampleMode.CLAMP):
        raise UnknownLayer(f"{layer.name}: slice mode {mode}")

    def compute(a: Arrays) -> Arrays:
        x = a[0]
        given = [a[index] if len(a) > index else None for index in (1, 2, 3)]
        start, size, stride = (
            (default or []) if value is None else [int(number) for number in np.atleast_1d(value)]
            for value, default in zip(given, fixed, strict=True)
        )
        axes = [int(n) for n in a[5]] if len(a) > 5 and a[5] is not None else fixed_axes
        for position, axis in enumerate(range(x.ndim) if axes is None else axes):
            index = np.arange(size[position]) * stride[position] + start[position]
            if mode == trt.SampleMode.CLAMP:
                index = index.clip(0, x.shape[axis] - 1)
            x = np.take(x, index, axis)
        return [x]

    return compute


def _gather(layer: Any, trt: ModuleType) -> Compute:
    axis, mode = layer.axis, layer.mode
    if mode == trt.GatherMode.ELEMENT:
        return lambda a: [np.take_along_axis(a[0], a[1], axis)]
    if layer.num_elementwise_dims:
        raise UnknownLayer(f"{layer.name}: gather with batch dimensions")
    if mode == trt.GatherMode.ND:
        return lambda a: [a[0][tuple(np.moveaxis(a[1], -1, 0))]]
    return lambda a: [np.take(a[0], a[1], axis)]


def _scatter(layer: Any, trt: ModuleType) -> Compute:
    axis, elementwise = layer.axis, layer.mode == trt.ScatterMode.ELEMENT

    def compute(a: Arrays) -> Arrays:
        x = a[0].copy()
        if elementwise:
            np.put_along_axis(x, a[1], a[2], axis)
        else:
            x[tuple(np.moveaxis(a[1], -1, 0))] = a[2]
        return [x]

    return compute


def _top_k(layer: Any, trt: ModuleType) -> Compute:
    axes, fixed, sign = layer.axes, layer.k, -1 if layer.op == trt.TopKOperation.MAX else 1

    def compute(a: Arrays) -> Arrays:
        (axis,) = _axes(axes, a[0].ndim)
        k = int(np.asarray(a[1]).reshape(())) if len(a) > 1 and a[1] is not None else fixed
        order = np.argsort(sign * a[0], axis, kind="stable").take(range(k), axis)
        return [np.take_along_axis(a[0], order, axis), order]

    return compute


def _fill(layer: Any, trt: ModuleType) -> Compute:
    if layer.operation != trt.FillOperation.LINSPACE:
        raise UnknownLayer(f"{layer.name}: fill with {layer.operation}")
    fixed, alpha, beta = _dims(layer.shape), layer.alpha, layer.beta

    def compute(a: Arrays) -> Arrays:
        given = [a[index] if len(a) > index else None for index in range(3)]
        shape = fixed if given[0] is None else [int(number) for number in given[0]]
        start = np.asarray(alpha if given[1] is None else given[1])
        steps = np.atleast_1d(beta if given[2] is None else given[2])
        assert shape is not None
        filled = np.zeros(shape, start.dtype) + start
        for axis, step in enumerate(steps):
            ramp = np.arange(shape[axis]) * step
            filled = filled + ramp.reshape([-1 if other == axis else 1 for other in range(len(shape))])
        return [filled]

    return compute


def _squeeze(a: Arrays) -> Arrays:
    """Without axes, every dimension of size 1 goes."""
    return [np.squeeze(a[0], tuple(int(axis) for axis in a[1].flat) if len(a) > 1 else None)]


def _axes(mask: int, rank: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(rank) if mask >> axis & 1)


def _dims(dims: Any) -> list[int] | None:
    """TensorRT's Dims as a list; None where they are unset, which it writes as a negative rank."""
    try:
        return None if dims is None else [int(size) for size in dims]
    except ValueError:
        return None


def _look_up(table: dict[Any, Any], key: Any, layer: Any) -> Any:
    if key not in table:
        raise UnknownLayer(f"{layer.name}: {key}")
    return table[key]


# Layer type -> the class that its attributes are read through, and what it computes.
MAKERS: dict[str, tuple[str, Maker]] = {
    "ACTIVATION": ("IActivationLayer", _activation),
    "CAST": ("ICastLayer", lambda layer, trt: lambda a: [a[0]]),  # every output is brought to its type anyway
    "CONCATENATION": ("IConcatenationLayer", _concatenation),
    "CONSTANT": ("IConstantLayer", _constant),
    "EINSUM": ("IEinsumLayer", _einsum),
    "ELEMENTWISE": ("IElementWiseLayer", _elementwise),
    "FILL": ("IFillLayer", _fill),
    "GATHER": ("IGatherLayer", _gather),
    "IDENTITY": ("IIdentityLayer", lambda layer, trt: lambda a: [a[0]]),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", _matrix_multiply),
    "REDUCE": ("IReduceLayer", _reduce),
    "SCATTER": ("IScatterLayer", _scatter),
    "SELECT": ("ISelectLayer", lambda layer, trt: lambda a: [np.where(a[0], a[1], a[2])]),
    "SHAPE": ("IShapeLayer", lambda layer, trt: lambda a: [np.array(a[0].shape, np.int64)]),
    "SHUFFLE": ("IShuffleLayer", _shuffle),
    "SLICE": ("ISliceLayer", _slice),
    "SOFTMAX": ("ISoftMaxLayer", _softmax),
    "SQUEEZE": ("ISqueezeLayer", lambda layer, trt: _squeeze),
    "TOPK": ("ITopKLayer", _top_k),
    "UNARY": ("IUnaryLayer", _unary),
    "UNSQUEEZE": (
        "IUnsqueezeLayer",
        lambda layer, trt: lambda a: [np.expand_dims(a[0], tuple(int(n) for n in a[1].flat))],
    ),
}
# Layers that make up a loop.
LOOP_CLASSES = {
    "ITERATOR": "IIteratorLayer",
    "LOOP_OUTPUT": "ILoopOutputLayer",
    "RECURRENCE": "IRecurrenceLayer",
    "TRIP_LIMIT": "ITripLimitLayer",
}
