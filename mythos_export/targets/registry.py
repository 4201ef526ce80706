"""The targets by name, each with where its class is. A target is imported when it is asked for: a command line's --help
must not wait for torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mythos_export.errors import TargetError

if TYPE_CHECKING:
    from mythos_export.targets.target import Target

TARGETS = {
    "onnx": "mythos_export.targets.onnxruntime:OnnxTarget",
    "tensorrt": "mythos_export.targets.tensorrt:TensorRTTarget",
    "cuda": "mythos_export.targets.cuda:CudaTarget",
}


def find_target(name: str) -> Target:
    """The target of that name. Raises TargetError."""
    if name not in TARGETS:
        raise TargetError(f"there is no target {name!r}; the targets are {', '.join(TARGETS)}")
    module, _, kind = TARGETS[name].partition(":")
    target: Target = getattr(importlib.import_module(module), kind)()
    return target
