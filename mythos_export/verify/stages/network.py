"""The TensorRT network as parsed, run layer by layer on the CPU: a wrong lowering shows without a GPU."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mythos_export.errors import ParityError
from mythos_export.targets.tensorrt_build.environment import FULL, INSTALL_HINT, RTX, probe_module
from mythos_export.verify.stages.stage import Bundle, Stage
from mythos_export.verify.tensorrt_network.process import NetworkProcess
from mythos_export.verify.trace import Answer, Trace, Values, names, stacked
from mythos_export.verify.twin import INSIDE
from mythos_runtime.spec import LoopSpec

MOST_WEIGHT_BYTES = 256_000_000
FEW_POSITIONS = 4  # rows x tokens of a case, for models above that size: numpy computes every expert over every token


class Network(Stage):
    """What TensorRT understood. Its kernels are not checked by this."""

    name: ClassVar[str] = "tensorrt network"
    runner: ClassVar[str] = "interpreter of the parsed network"
    artifact: ClassVar[str] = "model.tensorrt.onnx"

    def __init__(self, process: NetworkProcess, spec: LoopSpec) -> None:
        self.process, self.spec = process, spec

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        return None if tensorrt_module() else f"no TensorRT is usable here: {INSTALL_HINT}"

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        positions = inputs[bundle.spec.ports.of("ids").name].size
        return bundle.weight_bytes <= MOST_WEIGHT_BYTES or positions <= FEW_POSITIONS

    @classmethod
    def open(cls, bundle: Bundle) -> Network:
        return cls(NetworkProcess(tensorrt_module() or RTX, bundle.folder / cls.artifact), bundle.spec)

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return self.process.run(inputs).around

    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        run = self.process.run(inputs, keep=[INSIDE + name for name in names(self.spec)])  # the parser keeps names
        if not run.around[self.spec.ports.of("loops").name]:
            return Answer(run.around, stacked({name: [] for name in names(self.spec)}))
        for name in names(self.spec):
            if INSIDE + name not in run.kept:
                raise ParityError(f"cannot look inside TensorRT's loop: it computes nothing named {INSIDE}{name}")
        return Answer(run.around, Trace({name: run.kept[INSIDE + name] for name in names(self.spec)}))

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        return {"the parsed network": self.process.constants()}

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        runs = [self.process.run(inputs, whole=iteration) for iteration in iterations]
        return [Values(run.whole, run.around) for run in runs]

    def close(self) -> None:
        self.process.close()


@functools.cache
def tensorrt_module() -> str | None:
    """The module that parses: TensorRT-RTX, which needs no GPU, else full TensorRT where that works."""
    return next((module for module in (RTX, FULL) if probe_module(module).usable), None)
