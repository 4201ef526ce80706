"""Operators of the model that ONNX has itself: torch.export keeps each whole, and one standard node computes it.

Written out, a norm is seven nodes and a rotary embedding twenty; a small model would spend its time between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

from mythos_export.kernels.text import OPSET
from mythos_model.ops import RMS_EPS

op = getattr(onnxscript, f"opset{OPSET}")


def rms_norm(x: Any, weight: Any) -> Any:
    """RMSNormalization. Where x is wider than the weight (the loop's state), the result is narrowed at the end."""
    if x.dtype == weight.dtype:
        return op.RMSNormalization(x, weight, axis=-1, epsilon=RMS_EPS, stash_type=int(ir.DataType.FLOAT))
    wide = op.Cast(weight, to=int(x.dtype))
    normed = op.RMSNormalization(x, wide, axis=-1, epsilon=RMS_EPS, stash_type=int(ir.DataType.FLOAT))
    return op.Cast(normed, to=int(weight.dtype))


def rotary_embedding(x: Any, cos: Any, sin: Any, heads: int) -> Any:
    """RotaryEmbedding over adjacent pairs, in the dtype of the angles."""
    if x.dtype == cos.dtype:
        return op.RotaryEmbedding(x, cos, sin, interleaved=1, num_heads=heads)
    wide = op.Cast(x, to=int(cos.dtype))
    return op.Cast(op.RotaryEmbedding(wide, cos, sin, interleaved=1, num_heads=heads), to=int(x.dtype))


def translations() -> dict[Any, Callable[..., Any]]:
    """torch operator -> its translation, as torch.onnx.export takes them."""
    return {
        torch.ops.mythos.rms_norm.default: rms_norm,
        torch.ops.mythos.rotary_embedding.default: rotary_embedding,
    }
