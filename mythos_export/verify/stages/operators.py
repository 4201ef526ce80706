"""What computes the operators of an ONNX graph in ONNX Runtime: their portable function bodies, or our CPU kernels.

Each kind of graph is a stage both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import psutil

from mythos_export.verify.stages.stage import Bundle, Stage
from mythos_runtime.op_library import why_no_op_library
from mythos_runtime.session import OpLibrary

BODIES = 5  # times as much memory as float32 weights is what portable bodies of rounded ones take


class Portable(Stage):
    """As every ONNX runtime can run the graph."""

    runner: ClassVar[str] = "ONNX Runtime, portable function bodies"
    library: ClassVar[OpLibrary] = None

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        """Of rounded weights, every call makes all matrices in float32, several of them side by side."""
        whole, free = bundle.widened_bytes, psutil.virtual_memory().available
        if BODIES * whole <= free:
            return None
        return (
            f"portable bodies make every rounded matrix anew in float32, which takes about {BODIES * whole / 1e9:.0f} "
            f"GB, and {free / 1e9:.0f} GB are free"
        )

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        return super().takes(bundle, inputs) and bundle.is_short(inputs)


class Native(Stage):
    """With this project's own CPU kernels."""

    runner: ClassVar[str] = "ONNX Runtime, CPU kernels"
    library: ClassVar[OpLibrary] = "auto"

    @classmethod
    def lacking(cls, bundle: Bundle) -> str | None:
        return why_no_op_library()
