"""TensorRT's parser, which can abort its process, and the interpreter (`mythos_export.workers`)."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from mythos_export.errors import ToolFailed
from mythos_export.progress import Progress
from mythos_export.targets.tensorrt_build.worker import make_logger, parse
from mythos_export.verify.tensorrt_network.interpreter import LayerFailed, Run, run
from mythos_export.verify.tensorrt_network.layers import UnknownLayer
from mythos_export.verify.tensorrt_network.network import Network, read


class Interpreter:
    """What the worker is asked for."""

    def __init__(self, report: Progress) -> None:
        self.report = report

    def open(self, module: str, onnx: str) -> dict[str, Any]:
        """Parse a file; the layer types and how many of each there are."""
        trt = importlib.import_module(module)
        logger = make_logger(trt)
        builder = trt.Builder(logger)
        parsed = parse(trt, logger, builder, onnx)
        self.owners = parsed, builder, logger  # of the weights that the interpreter computes with
        try:
            self.network = read(parsed, trt)
        except UnknownLayer as error:
            raise ToolFailed(str(error)) from error
        return {"kinds": dict(self.network.kinds)}

    def constants(self) -> dict[str, Any]:
        """What TensorRT holds as weights, by output."""
        constants = [layer for layer in self.network.layers if layer.kind == "CONSTANT"]
        return {"arrays": {each.outputs[0][0]: each.compute([])[0] for each in constants}}

    def run(self, arrays: dict[str, np.ndarray], keep: list[str], whole: int | None) -> dict[str, Any]:
        """Run once, see `interpreter.run`; the arrays `around/NAME`, `kept/NAME` (stacked) and `whole/NAME`."""
        try:
            result = run(self.network, arrays, keep, whole)
        except LayerFailed as error:
            raise ToolFailed(str(error)) from error
        return {"arrays": _arrays(self.network, result, keep, whole)}


def _arrays(network: Network, result: Run, keep: list[str], whole: int | None) -> dict[str, np.ndarray]:
    names = result.values if whole is not None else network.outputs
    found = {f"around/{name}": result.values[name] for name in names}
    for name in keep:
        steps = [values[name] for values in result.iterations if name in values]
        if steps:
            found[f"kept/{name}"] = np.stack(steps)
    if whole is not None and whole < len(result.iterations):
        found |= {f"whole/{name}": array for name, array in result.iterations[whole].items()}
    return found
