"""mythos::moe in Triton over rounded weights: pairs grouped by expert, as the plain one does for many tokens.

The weights are what takes the time for few tokens, and they are read once for each block of an expert's pairs: one
route serves decode and prefill, with blocks of 16 and of more rows. `rounded_plan.py` says when.

Legend: as in `triton`; FP is an expert's width in whole tiles, which gate and up are padded to apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.moe.rounded_plan import plans
from mythos_export.kernels.moe.triton import moe
from mythos_export.kernels.rounded import load_weights, scaled
from mythos_export.kernels.triton_run import check_format, check_weights, execute, precision_of
from mythos_model import products
from mythos_model.formats import FORMATS, PLAIN


def moe_of_format(
    x: Tensor,
    expert_index: Tensor,
    expert_weight: Tensor,
    routed_gate_up: Tensor,
    routed_down: Tensor,
    shared_gate_up: Tensor,
    shared_down: Tensor,
    routed_gate_up_scale: Tensor | None = None,
    routed_down_scale: Tensor | None = None,
    shared_gate_up_scale: Tensor | None = None,
    shared_down_scale: Tensor | None = None,
    format: str = PLAIN,
) -> Tensor:
    """The kernels for weights in any format, with the signature and the result of `mythos_model.ops.moe`."""
    weights = (routed_gate_up, routed_down, shared_gate_up, shared_down)
    scales = (routed_gate_up_scale, routed_down_scale, shared_gate_up_scale, shared_down_scale)
    if format == PLAIN:
        return moe(x, expert_index, expert_weight, *weights)
    if FORMATS[format].activations:
        return products.moe(x, expert_index, expert_weight, *weights, *scales, format)
    given = [scale for scale in scales if scale is not None]
    if len(given) != len(scales):
        raise ValueError(f"mythos::moe in Triton: found {len(given)} scales beside weights in {format}, expected 4")
    routed_up, routed, shared_up, shared = given
    return rounded_moe(x, expert_index, expert_weight, *weights, routed_up, routed, shared_up, shared, format)


def rounded_moe(
    x: Tensor,
    expert_index: Tensor,
    expert_weight: Tensor,
    routed_gate_up: Tensor,
    routed_down: Tensor,
    shared_gate_up: Tensor,
    shared_down: Tensor,
    routed_gate_up_scale: Tensor,
    routed_down_scale: Tensor,
    shared_gate_up_scale: Tensor,
    shared_down_scale: Tensor,
    format: str,
) -> Tensor:
    """Mixture of SwiGLU experts over rounded weights; arguments as `mythos_model.ops.moe`, one index outside of 0..E-1
    must not occur.

    x [..., D], expert_index int64 and expert_weight [..., K] -> [..., D] in x's dtype.
    """
    precision = precision_of("moe", x, expert_weight)
    check_format("moe", format, x)
    weights = {
        "routed_gate_up": routed_gate_up,
        "routed_down": routed_down,
        "shared_gate_up": shared_gate_up,
        "shared_down": shared_down,
    }
    scales = (routed_gate_up_scale, routed_down_scale, shared_gate_up_scale, shared_down_scale)
    check_weights("moe", **weights, **{f"{n}_scale": scale for n, scale in zip(weights, scales, strict=True)})
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return out
    D, K = x.shape[-1], expert_index.shape[-1]
    widths = tuple(16 * part.shape[-4] // 2 for part in (routed_gate_up, shared_gate_up))
    padded = tuple(part.shape[-3] * FORMATS[format].group for part in weights.values())
    sizes = {"n": x.numel() // D}
    plan = choose(plans(D, widths, padded, routed_down.shape[0], K, format, precision), sizes)
    buffers = {
        "x": x.contiguous(),
        "expert_index": expert_index.contiguous(),
        "expert_weight": expert_weight.contiguous(),
        "out": out,
        **weights,
        **{f"{name}_scale": scale for name, scale in zip(weights, scales, strict=True)},
    }
    execute(plan, buffers, sizes)
    return out


@triton.jit
def up_kernel(
    x,  # [n, D]
    gate_up,  # of [E, 2FP, INPUTS], or of [2FP, INPUTS] where not GROUPED
    scale,
    expert_weight,  # [n, TOP_K]
    sorted_pairs,  # int32 [blocks, BLOCK_M]
    block_expert,  # int32 [blocks]
    hidden,  # [rows, FP]
    rows,  # pairs, or n where not GROUPED
    GROUPED: tl.constexpr,
    TOP_K: tl.constexpr,
    FP: tl.constexpr,
    D: tl.constexpr,
    INPUTS: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    FLOAT8: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Hidden units silu(gate x) * up x of a block of rows. GROUPED: of one expert's pairs, times the routing weight."""
    block = tl.program_id(0)
    f = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    token = row
    if GROUPED:
        expert = tl.load(block_expert + block)
        if expert < 0:
            return
        gate_up += expert.to(tl.int64) * (2 * FP * INPUTS * BITS // 8)
        scale += expert.to(tl.int64) * (2 * FP * (INPUTS // BLOCK if BLOCK > 0 else 1))
        row = tl.load(sorted_pairs + row)
        token = row // TOP_K
    live = row < rows
    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for d0 in range(0, D, BLOCK_K):
        d = d0 + tl.arange(0, BLOCK_K)
        value = tl.load(
            x + token.to(tl.int64)[:, None] * D + d[None, :], mask=live[:, None] & (d < D)[None, :], other=0.0
        )
        there = (d < D)[:, None] & (f < FP)[None, :]
        weights = load_weights(gate_up, scale, d, f, there, INPUTS, BITS, BLOCK, FLOAT8)
        gate = tl.dot(value, weights.to(value.dtype), gate, input_precision=PRECISION)
        weights = load_weights(gate_up, scale, d, f + FP, there, INPUTS, BITS, BLOCK, FLOAT8)
        up = tl.dot(value, weights.to(value.dtype), up, input_precision=PRECISION)
    gate = scaled(gate, scale, f, f < FP, BLOCK)
    up = scaled(up, scale, f + FP, f < FP, BLOCK)
    result = gate * tl.sigmoid(gate) * up
    if GROUPED:
        result *= tl.load(expert_weight + row, mask=live, other=0.0).to(tl.float32)[:, None]
    tl.store(
        hidden + row.to(tl.int64)[:, None] * FP + f[None, :],
        result.to(hidden.dtype.element_ty),
        mask=live[:, None] & (f < FP)[None, :],
    )


@triton.jit
def down_kernel(
    hidden,  # [rows, FP]
    down,  # of [E, D, INPUTS], or of [D, INPUTS] where not GROUPED
    scale,
    sorted_pairs,  # int32 [blocks, BLOCK_M]
    block_expert,  # int32 [blocks]
    routed,  # float32 [pairs, D]: written where GROUPED, else [n, TOP_K, D] and added
    out,  # [n, D]; not written where GROUPED
    rows,  # pairs, or n where not GROUPED
    GROUPED: tl.constexpr,
    TOP_K: tl.constexpr,
    FP: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    INPUTS: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    FLOAT8: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What each pair's expert gives; or, not GROUPED, the shared experts' share plus the sum over a token's slots, slot
    by slot. ROWS is D in whole tiles."""
    block = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = block * BLOCK_M + tl.arange(0, BLOCK_M)
    if GROUPED:
        expert = tl.load(block_expert + block)
        if expert < 0:
            return
        down += expert.to(tl.int64) * (ROWS * INPUTS * BITS // 8)
        scale += expert.to(tl.int64) * (ROWS * (INPUTS // BLOCK if BLOCK > 0 else 1))
        row = tl.load(sorted_pairs + row)
    live = row < rows
    wide = row.to(tl.int64)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for f0 in range(0, FP, BLOCK_K):
        f = f0 + tl.arange(0, BLOCK_K)
        left = tl.load(hidden + wide[:, None] * FP + f[None, :], mask=live[:, None] & (f < FP)[None, :], other=0.0)
        there = (f < FP)[:, None] & (d < D)[None, :]
        weights = load_weights(down, scale, f, d, there, INPUTS, BITS, BLOCK, FLOAT8)
        total = tl.dot(left, weights.to(left.dtype), total, input_precision=PRECISION)
    total = scaled(total, scale, d, d < D, BLOCK)
    there = live[:, None] & (d < D)[None, :]
    if GROUPED:
        tl.store(routed + wide[:, None] * D + d[None, :], total, mask=there)
    else:
        for slot in range(TOP_K):
            total += tl.load(routed + (wide * TOP_K + slot)[:, None] * D + d[None, :], mask=there, other=0.0)
        tl.store(out + wide[:, None] * D + d[None, :], total.to(out.dtype.element_ty), mask=there)
