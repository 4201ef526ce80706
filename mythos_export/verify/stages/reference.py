"""model.onnx in onnx's reference evaluator: plain numpy, every operator as the ONNX specification words it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_loop import Loop as _Loop
from onnx.reference.ops.op_rms_normalization import RMSNormalization as _RMSNormalization

from mythos_export.verify.stages.stage import Bundle, Stage, failing, load_graph
from mythos_export.verify.trace import Answer, names, stacked
from mythos_export.verify.twin import Twin, make_twin
from mythos_runtime.spec import LoopSpec

MOST_WEIGHT_BYTES = 32_000_000
MOST_POSITIONS = 4  # rows x tokens of a case: the evaluator is a hundred times slower than ONNX Runtime
# What it raises where it cannot compute an operator: it is numpy and Python all the way down.
ERRORS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class GatherElements(OpRun):
    """onnx 1.23's own takes a negative axis for a mistake in the shapes."""

    def _run(self, data: np.ndarray, indices: np.ndarray, axis: int | None = None) -> tuple[np.ndarray]:
        return (np.take_along_axis(data, indices, axis or 0),)


class RMSNormalization(_RMSNormalization):
    """onnx's own squares in float16, where the standard asks for float32 (stash_type 1, the only one it takes)."""

    def _run(self, X: np.ndarray, Scale: np.ndarray, *options: Any, **named: Any) -> tuple[np.ndarray]:
        wide = X.astype(np.float32) if X.dtype == np.float16 else X
        one = np.ones(Scale.shape, wide.dtype)
        return (super()._run(wide, one, *options, **named)[0].astype(X.dtype) * Scale,)


class Loop(_Loop):
    """onnx's own fails where it is to join the values of no iterations; they are empty here."""

    def _run(self, M: Any, cond: Any, *args: Any, **options: Any) -> tuple[Any, ...]:
        if cond and (M is None or M > 0):
            return super()._run(M, cond, *args, **options)  # type: ignore[no-any-return]
        return (*args[: self.N], *(np.zeros(0, np.float32) for _ in range(self.K)))


def name_overloads(model: onnx.ModelProto) -> None:
    """Give every overload of a function a name of its own, in place: the evaluator takes them for one function."""
    for function in model.functions:
        _named(function.node)
        function.name, function.overload = function.name + function.overload, ""
    _named(model.graph.node)


def _named(nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        node.op_type, node.overload = node.op_type + node.overload, ""
        for attribute in node.attribute:
            _named(attribute.g.node)


class Reference(Stage):
    """For small shapes: a second opinion on what the graph means, independent of ONNX Runtime."""

    name: ClassVar[str] = "onnx reference"
    runner: ClassVar[str] = "onnx's reference evaluator"
    artifact: ClassVar[str] = "model.onnx"
    generates: ClassVar[bool] = False

    def __init__(self, spec: LoopSpec, twin: Twin, linked: Mapping[str, np.ndarray]) -> None:
        self.spec, self.twin = spec, twin
        self.linked = {port.name: linked[port.name] for port in twin.model.graph.input if port.name in linked}
        with failing(self.runner, *ERRORS):
            name_overloads(twin.model)
            self.evaluator = ReferenceEvaluator(twin.model, new_ops=[GatherElements, RMSNormalization, Loop])

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        if bundle.weight_bytes > MOST_WEIGHT_BYTES:
            return f"for models up to {MOST_WEIGHT_BYTES / 1e6:.0f} MB; this one has {bundle.weight_bytes / 1e6:.0f} MB"
        return None

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        return inputs[bundle.spec.ports.of("ids").name].size <= MOST_POSITIONS

    @classmethod
    def open(cls, bundle: Bundle) -> Reference:
        twin = make_twin(load_graph(bundle.folder / cls.artifact, weights=True), names(bundle.spec))
        return cls(bundle.spec, twin, bundle.linked)

    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        with failing(self.runner, *ERRORS):
            found = self.evaluator.run(None, {**inputs, **self.linked})
        values = dict(zip(self.evaluator.output_names, found, strict=True))
        outputs = {name: values[name] for name in self.twin.shipped}
        # It joins the iterations' values along the first axis, where ONNX stacks them along a new one.
        steps = int(outputs[self.spec.ports.of("loops").name])
        if steps == 0:
            return Answer(outputs, stacked({name: [] for name in names(self.spec)}))
        inside = {name: values[name].reshape(steps, -1, *values[name].shape[1:]) for name in self.twin.taps}
        return Answer(outputs, self.twin.trace(inside))
