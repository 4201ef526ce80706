"""The operators over block-wise int8 and int4 weights in plain PyTorch, and their registration; see `ops`.

Legend for the shape comments: as in `ops`; V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.blockwise import TILE, dequantize
from mythos_model.ops import moe


def quantized_linear(x: Tensor, weight: Tensor, scale: Tensor, rows: int) -> Tensor:
    """x times block-wise quantised weights, which are exact in float32; the product is taken in x's dtype.

    Args:
        x: [..., K].
        weight, scale: of a matrix [rows, K], as `mythos_model.blockwise` lays it out.
        rows: outputs; the weights may be padded to more.

    Returns: [..., rows] in x's dtype.
    """
    return F.linear(x, dequantize(weight, scale, rows, x.shape[-1]).to(x.dtype))


def quantized_embedding(ids: Tensor, weight: Tensor, scale: Tensor, dim: int) -> Tensor:
    """Rows of a block-wise quantised matrix [V, dim]: ids int64 [...] -> float32 [..., dim]."""
    tile = ids // TILE
    tiles = dequantize(weight[tile].unsqueeze(-3), scale[tile].unsqueeze(-3), inputs=dim)  # [..., 16, dim]
    return tiles.gather(-2, (ids % TILE)[..., None, None].expand(*ids.shape, 1, dim)).squeeze(-2)


def quantized_moe(
    x: Tensor,
    expert_index: Tensor,
    expert_weight: Tensor,
    routed_gate_up: Tensor,
    routed_gate_up_scale: Tensor,
    routed_down: Tensor,
    routed_down_scale: Tensor,
    shared_gate_up: Tensor,
    shared_gate_up_scale: Tensor,
    shared_down: Tensor,
    shared_down_scale: Tensor,
) -> Tensor:
    """`moe` with block-wise quantised weights, which are exact in float32.

    Args:
        x, expert_index, expert_weight: as in `moe`.
        routed_gate_up and its scale: of [E, 2F', D], laid out as in `mythos_model.blockwise`; F' is the experts' width
            padded to whole tiles, gate and up apart, by rows of zeros.
        routed_down and its scale: of [E, D, F]; inputs from F on are zeros.
        shared_gate_up, shared_down and their scales: of [2Fs', D] and [D, Fs].

    Returns: [..., D] in x's dtype.
    """
    D = x.shape[-1]

    def plain(gate_up: Tensor, gate_up_scale: Tensor, down: Tensor, down_scale: Tensor) -> list[Tensor]:
        width = gate_up.shape[-3] * TILE // 2
        both = dequantize(gate_up, gate_up_scale, inputs=D), dequantize(down, down_scale, D, width)
        return [weights.to(x.dtype) for weights in both]

    used, index = torch.unique(expert_index, return_inverse=True)  # no others are unpacked
    routed = [part[used] for part in (routed_gate_up, routed_gate_up_scale, routed_down, routed_down_scale)]
    shared = (shared_gate_up, shared_gate_up_scale, shared_down, shared_down_scale)
    return moe(x, index, expert_weight, *plain(*routed), *plain(*shared))


# One name per form, so that an operator's types are fixed.
int8_linear = int4_linear = quantized_linear
int8_embedding = int4_embedding = quantized_embedding
int8_moe = int4_moe = quantized_moe

for _form in ("int8", "int4"):
    _linear_op = torch.library.custom_op(f"mythos::{_form}_linear", quantized_linear, mutates_args=())
    _embedding_op = torch.library.custom_op(f"mythos::{_form}_embedding", quantized_embedding, mutates_args=())
    _quantized_moe_op = torch.library.custom_op(f"mythos::{_form}_moe", quantized_moe, mutates_args=())
    _linear_op.register_fake(lambda x, weight, scale, rows: x.new_empty(*x.shape[:-1], rows))
    _embedding_op.register_fake(lambda ids, weight, scale, dim: ids.new_empty(*ids.shape, dim, dtype=torch.float32))
    _quantized_moe_op.register_fake(lambda x, *routing_and_weights: torch.empty_like(x))
