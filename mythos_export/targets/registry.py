"""The targets by name."""

from __future__ import annotations

from mythos_export.targets.onnxruntime import OnnxTarget
from mythos_export.targets.target import Target
from mythos_export.targets.tensorrt import TensorRTTarget

TARGETS: dict[str, Target] = {target.name: target for target in (OnnxTarget(), TensorRTTarget())}
