"""mythos::linear in Triton over rounded weights, with the signature and the result of `mythos_model.ops.linear`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.linear.plan import plans
from mythos_export.kernels.rounded import load_weights, scaled
from mythos_export.kernels.triton_run import check_format, check_weights, execute, precision_of
from mythos_model import products
from mythos_model.formats import FORMATS, PLAIN


def linear(x: Tensor, weight: Tensor, scale: Tensor | None, rows: int, format: str = PLAIN) -> Tensor:
    """x times a matrix; arguments as `mythos_model.ops.linear`. Plain weights are multiplied as there, and so are
    those that what they meet is rounded for.

    x [..., K], weight and scale as `mythos_model.formats` lays them out -> [..., rows] in x's dtype.
    """
    if format == PLAIN or scale is None or FORMATS[format].activations:
        return products.linear(x, weight, scale, rows, format)
    precision = precision_of("linear", x)
    check_format("linear", format, x)
    check_weights("linear", weight=weight, scale=scale)
    out = x.new_empty(*x.shape[:-1], rows)
    if not out.numel():
        return out
    K = x.shape[-1]
    sizes = {"n": x.numel() // K}
    plan = choose(plans(K, weight.shape[-3] * FORMATS[format].group, rows, format, precision), sizes)
    execute(plan, {"x": x.contiguous(), "weight": weight, "scale": scale, "out": out}, sizes)
    return out


@triton.jit
def linear_kernel(
    x,  # [n, K]
    weight,  # of a matrix [ROWS, INPUTS]
    scale,
    out,  # [n, ROWS]
    n,
    K: tl.constexpr,
    INPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    FLOAT8: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (block of x's rows, block of the matrix's)."""
    token = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    row = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = token < n
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k0 in range(0, K, BLOCK_K):
        k = k0 + tl.arange(0, BLOCK_K)
        value = tl.load(x + token[:, None] * K + k[None, :], mask=live[:, None] & (k < K)[None, :], other=0.0)
        there = (k < K)[:, None] & (row < ROWS)[None, :]
        weights = load_weights(weight, scale, k, row, there, INPUTS, BITS, BLOCK, FLOAT8)
        total = tl.dot(value, weights.to(value.dtype), total, input_precision=PRECISION)
    total = scaled(total, scale, row, row < ROWS, BLOCK)
    tl.store(
        out + token[:, None] * ROWS + row[None, :],
        total.to(out.dtype.element_ty),
        mask=live[:, None] & (row < ROWS)[None, :],
    )
