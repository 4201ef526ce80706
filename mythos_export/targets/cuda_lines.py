"""What the engine needs in ONNX Runtime on a device beside the row graphs; see `mythos_runtime.line_ports`: the row
graphs on lines of pools, and the graphs that move lines of bytes, which hold no weights, and no operator that is not
ONNX's own.

Those that move bytes are run once in ONNX Runtime on the CPU when made, on drawn lines, and held to numpy, to the bit.
The others are a stage of a bundle's verification (`mythos_export.verify.stages.row_lines`).
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
from mythos_export.rows_on_lines import write_rows_on_lines
from mythos_runtime.line_ports import ENCODED, FOLDER, TAKE_BYTES, TOKEN, move_file, move_ports
from mythos_runtime.ports import Port, Ports, numpy_dtype, shape_of
from mythos_runtime.spec import LoopSpec

Array = NDArray[Any]
_IR_VERSION = 10
_AXIS = numpy_helper.from_array(np.array([1], np.int64), "axis")
_SIZES = {"L": 7, "R": 3, "B": 5}  # of the lines that each graph is tried on


def write_lines(spec: LoopSpec, folder: Path) -> tuple[str, ...]:
    """Write the graphs into a bundle's folder, which has the row graphs. Returns their paths within it.

    Raises:
        TargetError: a state of the model, or a value of a row graph, has a name that these graphs need.
        ParityError: ONNX Runtime computes something else than numpy.
    """
    for name in (ENCODED, TOKEN):
        if any(tensor.name == name for tensor in spec.state):
            raise TargetError(f"a state of the model is called {name}, as what is kept beside the states is")
    (folder / FOLDER).mkdir(exist_ok=True)
    for name, ports in move_ports().items():
        onnx.save(_moving(name, ports), folder / move_file(name))
        _hold(folder / move_file(name), ports)
    return (*map(move_file, move_ports()), *write_rows_on_lines(spec, folder))


def _moving(name: str, ports: Ports) -> onnx.ModelProto:
    nodes, constants = (_taking(), []) if name == TAKE_BYTES else (_putting(), [_AXIS])
    inputs, outputs = (list(map(_value, side)) for side in (ports.inputs, ports.outputs))
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(port: Port) -> onnx.ValueInfoProto:
    element = helper.np_dtype_to_tensor_dtype(numpy_dtype(port.dtype))
    return helper.make_tensor_value_info(port.name, element, port.dims)


def _taking() -> list[NodeProto]:
    return [helper.make_node("Gather", ["pool", "lines"], ["rows"])]


def _putting() -> list[NodeProto]:
    return [
        helper.make_node("Unsqueeze", ["lines", "axis"], ["at"]),
        helper.make_node("ScatterND", ["pool", "at", "rows"], ["pool_next"]),
    ]


def _hold(path: Path, ports: Ports) -> None:
    random = np.random.default_rng(0)
    feeds = {port.name: _drawn(random, port) for port in ports.inputs}
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (port,) = ports.outputs
    (found,) = session.run([port.name], feeds)
    expected = _expected(port, feeds)
    if found.shape != expected.shape or not np.array_equal(found, expected):
        raise ParityError(f"{path.name}: ONNX Runtime does not compute {port.name} as numpy does")


def _drawn(random: np.random.Generator, port: Port) -> Array:
    if port.role == "lines":
        return random.permutation(_SIZES["L"])[: _SIZES["R"]]
    return random.integers(-128, 128, shape_of(port, _SIZES)).astype(np.int8)


def _expected(port: Port, feeds: Mapping[str, Array]) -> Array:
    if port.role == "row":
        taken: Array = feeds["pool"][feeds["lines"]]
        return taken
    after: Array = feeds["pool"].copy()
    after[feeds["lines"]] = feeds["rows"]
    return after
