"""Operators of the model that ONNX has itself: torch.export keeps each whole, and one standard node computes it.

Written out, a norm is seven nodes and a rotary embedding twenty; a small model would spend its time between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxscript
import torch

from mythos_export.kernels.text import OPSET

op = getattr(onnxscript, f"opset{OPSET}")


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """RMSNormalization. Where x is wider than the weight (the loop's state), the result is narrowed at the end.

    ONNX's operator has no form without a scale: a norm without a weight gets ones.
    """
    if weight is None:
        ones = np.ones(x.shape[-1], x.dtype.numpy())
        return _norm(x, op.Constant(value=ir.serde.serialize_tensor(ir.tensor(ones))), eps)
    if x.dtype == weight.dtype:
        return _norm(x, weight, eps)
    return op.Cast(_norm(x, op.Cast(weight, to=int(x.dtype)), eps), to=int(weight.dtype))


def _norm(x: Any, scale: Any, eps: float) -> Any:
    return op.RMSNormalization(x, scale, axis=-1, epsilon=eps, stash_type=int(ir.DataType.FLOAT))


def rotary_embedding(x: Any, cos: Any, sin: Any, heads: int) -> Any:
    """RotaryEmbedding over adjacent pairs, in the dtype of the angles. It takes a batch: packed rows are one of one."""
    rows = len(x.shape) == 2
    wide = x if x.dtype == cos.dtype else op.Cast(x, to=int(cos.dtype))
    if rows:
        first = op.Constant(value_ints=[0])
        wide, cos, sin = op.Unsqueeze(wide, first), op.Unsqueeze(cos, first), op.Unsqueeze(sin, first)
    rotated = op.RotaryEmbedding(wide, cos, sin, interleaved=1, num_heads=heads)
    if rows:
        rotated = op.Squeeze(rotated, first)
    return rotated if x.dtype == cos.dtype else op.Cast(rotated, to=int(x.dtype))


def largest(x: Any, count: int) -> Any:
    """TopK, which takes the first of equal ones."""
    _, indices = op.TopK(x, op.Constant(value_ints=[count]), axis=-1, largest=1, sorted=1)
    return indices


def translations() -> dict[Any, Callable[..., Any]]:
    """torch operator -> its translation, as torch.onnx.export takes them."""
    return {
        torch.ops.mythos.largest.default: largest,
        torch.ops.mythos.rms_norm.default: rms_norm,
        torch.ops.mythos.rotary_embedding.default: rotary_embedding,
    }
