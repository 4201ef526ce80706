"""The graphs that move lines of states and pages where ONNX Runtime runs the row graphs on a device; see
`mythos_runtime.line_ports`. They hold no weights, and no operator that is not ONNX's own.

Each is run once in ONNX Runtime on the CPU when made, on drawn lines, and held to numpy: what is moved, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from mythos_export.errors import ParityError, TargetError
from mythos_export.kernels.text import OPSET
from mythos_runtime.line_ports import (
    CROSS,
    ENCODED,
    FOLDER,
    PUT,
    PUT_BYTES,
    REST,
    TAKE,
    TAKE_BYTES,
    TOKEN,
    line_files,
    line_ports,
)
from mythos_runtime.ports import Port, Ports, numpy_dtype, shape_of
from mythos_runtime.spec import LoopSpec

Array = NDArray[Any]
_IR_VERSION = 10
_AXIS = numpy_helper.from_array(np.array([1], np.int64), "axis")
_NEAR = 1e-6  # of an early answer: one product and one sum in float32
_SIZES = {"L": 7, "R": 3, "B": 5}  # of the lines that each graph is tried on


def write_lines(spec: LoopSpec, folder: Path) -> tuple[str, ...]:
    """Write the graphs into a bundle's folder, and try them there. Returns their paths within it.

    Raises:
        TargetError: a state of the model has a name that these graphs need.
        ParityError: ONNX Runtime computes something else than numpy.
    """
    graphs, files = line_ports(spec), line_files(spec)
    rest = graphs.get(REST, Ports((), ()))
    around = [port.name for port in (*rest.inputs, *rest.outputs) if port.role in ("early", "answered")]
    _refuse_twice([ENCODED, TOKEN, *around, *(tensor.name for tensor in spec.state)])
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, file in files.items():
        onnx.save(_model(name, graphs[name]), folder / file)
        _hold(folder / file, name, graphs[name], spec)
    return tuple(files.values())


def _model(name: str, ports: Ports) -> onnx.ModelProto:
    nodes = _MAKERS[name](ports)
    constants = [_AXIS] if any(_AXIS.name in node.input for node in nodes) else []
    given = [*(port.name for port in ports.inputs), *(constant.name for constant in constants)]
    _refuse_twice([*given, *(name for node in nodes for name in node.output)])
    inputs, outputs = (list(map(_value, side)) for side in (ports.inputs, ports.outputs))
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _refuse_twice(names: list[str]) -> None:
    """All but the states' names are ours and differ, so that one that is there twice is a state's."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TargetError(
            f"a state of the model is called {twice}, as another tensor of the graphs that move states is"
        )


def _value(port: Port) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(numpy_dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, element, port.dims)


def _taking(ports: Ports) -> list[NodeProto]:
    pools = [port for port in ports.inputs if port.role == "pool"]
    return [
        helper.make_node("Gather", [pool.name, "lines"], [row.name])
        for pool, row in zip(pools, ports.outputs, strict=True)
    ]


def _putting(ports: Ports) -> list[NodeProto]:
    rows, pools = ([port.name for port in ports.inputs if port.role == role] for role in ("row", "pool"))
    return [
        helper.make_node("Unsqueeze", ["lines", "axis"], ["at"]),
        *(
            helper.make_node("ScatterND", [pool, "at", row], [after.name])
            for pool, row, after in zip(pools, rows, ports.outputs, strict=True)
        ),
    ]


def _resting(ports: Ports) -> list[NodeProto]:
    """As `States.answers`: an early answer takes what is left of 1 from the state."""
    answer, h, spent, _, _ = (port.name for port in ports.inputs)
    return [
        helper.make_node("CastLike", ["axis", spent], ["whole"]),
        helper.make_node("Sub", ["whole", spent], ["left"]),
        helper.make_node("Sub", ["whole", "whole"], ["nothing"]),
        helper.make_node("Max", ["left", "nothing"], ["not_less"]),
        helper.make_node("Not", ["halted"], ["runs"]),
        helper.make_node("And", ["early", "runs"], ["takes"]),
        helper.make_node("Where", ["takes", "not_less", "nothing"], ["rest_1d"]),
        helper.make_node("Unsqueeze", ["rest_1d", "axis"], ["rest"]),
        helper.make_node("Mul", ["rest", h], ["more"]),
        helper.make_node("Add", [answer, "more"], ["answered"]),
    ]


def _crossing(ports: Ports) -> list[NodeProto]:
    return [helper.make_node("Identity", [ports.inputs[0].name], [ports.outputs[0].name])]


_MAKERS = {
    **{TAKE: _taking, TAKE_BYTES: _taking, PUT: _putting, PUT_BYTES: _putting},
    **{REST: _resting, CROSS: _crossing},
}


def _hold(path: Path, name: str, ports: Ports, spec: LoopSpec) -> None:
    random = np.random.default_rng(0)
    feeds = {port.name: _drawn(random, port) for port in ports.inputs}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in ports.outputs]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    for port in ports.outputs:
        expected = _expected(name, port, feeds, spec)
        near = _NEAR if name == REST else 0.0
        if found[port.name].shape != expected.shape or not np.allclose(found[port.name], expected, near, near):
            raise ParityError(f"{path.name}: ONNX Runtime does not compute {port.name} as numpy does")


def _drawn(random: np.random.Generator, port: Port) -> Array:
    shape, dtype = shape_of(port, _SIZES), numpy_dtype(port.dtype)
    if port.role == "lines":
        return random.permutation(_SIZES["L"])[: _SIZES["R"]]
    if dtype == np.bool_:
        return random.random(shape) < 0.5
    drawn: Array = (random.standard_normal(shape) * (1 if dtype.kind == "f" else 50)).astype(dtype)
    return drawn


def _expected(name: str, port: Port, feeds: Mapping[str, Array], spec: LoopSpec) -> Array:
    if name == REST:
        answer, h, spent = (feeds[each] for each in (spec.state[1].name, spec.state[0].name, str(spec.exit.spent)))
        rest = np.where(feeds["early"] & ~feeds["halted"], np.maximum(1 - spent, 0), 0)
        early: Array = answer + rest[:, None] * h
        return early
    if name == CROSS:
        return feeds["bytes"]
    pool = "pool" if port.group is None else f"{port.group}_pool"
    if port.role == "row":
        taken: Array = feeds[pool][feeds["lines"]]
        return taken
    after: Array = feeds[pool].copy()
    after[feeds["lines"]] = feeds[port.group or "rows"]
    return after
