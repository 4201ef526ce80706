"""mythos::act_halting in Triton, with the signature and the results of the plain one in `mythos_model.ops`.

In plain PyTorch it is some fifteen launches of a few microseconds each, in every iteration; here it is two.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.act.plan import plans
from mythos_export.kernels.triton_run import execute, precision_of


def act_halting(
    h: Tensor,
    out: Tensor,
    cumulative: Tensor,
    halted: Tensor,
    depth: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One iteration of Adaptive Computation Time; arguments and results as `mythos_model.ops.act_halting`.

    h, out [B, T, D] and cumulative [B, T], float32; halted bool and depth int32 [B, T]; weight [1, D], bias [1],
    threshold [] or [B, T], float32 -> p, out, cumulative, halted, depth, and bool [], whether any position runs on.
    """
    if precision_of("act_halting", h, out, cumulative, weight, bias, threshold) != "fp32":
        raise ValueError(
            f"mythos::act_halting takes float32, found {h.dtype}: halting is summed in it at any precision"
        )
    buffers = {"h": h, "out": out, "cumulative": cumulative, "halted": halted, "depth": depth}
    buffers = {name: tensor.contiguous() for name, tensor in buffers.items()}
    results = {
        "p": torch.empty_like(buffers["cumulative"]),
        **{f"{name}_next": torch.empty_like(buffers[name]) for name in ("out", "cumulative", "halted", "depth")},
        "running": torch.empty((), dtype=torch.bool, device=h.device),
    }
    buffers |= {"weight": weight.contiguous(), "bias": bias, "threshold": threshold.contiguous(), **results}
    sizes = {"rows": cumulative.numel(), "threshold_stride": 1 if threshold.ndim else 0}
    (plan,) = plans(h.shape[-1])
    execute(plan, buffers, sizes)
    p, new_out, new_cumulative, new_halted, new_depth, running = results.values()
    return p, new_out, new_cumulative, new_halted, new_depth, running


@triton.jit
def halting_share(logit, before, limit, runs):
    """Of a row: the probability of halting now, the share of its state in the result, and the sum of probabilities,
    which was `before` and halts at `limit`. All float32; `runs`: it had not halted."""
    probability = 1.0 / (1.0 + tl.exp(-logit))
    # The last contribution takes what is left of 1. A position that never gets there takes no remainder.
    share = tl.where(before + probability >= limit, tl.maximum(1.0 - before, 0.0), probability)
    return probability, tl.where(runs, share, 0.0), before + tl.where(runs, probability, 0.0)


@triton.jit
def halt_kernel(
    h,  # float32 [rows, D]
    out,  # float32 [rows, D]
    cumulative,  # float32 [rows]
    halted,  # bool [rows]
    depth,  # int32 [rows]
    weight,  # float32 [D]
    bias,  # float32 [1]
    threshold,  # float32 [rows] or []
    p,  # float32 [rows]
    out_next,
    cumulative_next,
    halted_next,
    depth_next,
    threshold_stride,  # 1, or 0 where all rows have one
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (row)."""
    row = tl.program_id(0).to(tl.int64)
    h += row * D
    summed = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        state = tl.load(h + d, mask=d < D, other=0.0)
        summed += state * tl.load(weight + d, mask=d < D, other=0.0)
    limit = tl.load(threshold + row * threshold_stride)
    runs = tl.load(halted + row) == 0
    logit = tl.sum(summed, 0) + tl.load(bias)
    probability, share, after = halting_share(logit, tl.load(cumulative + row), limit, runs)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        total = tl.load(out + row * D + d, mask=d < D, other=0.0)
        total += share * tl.load(h + d, mask=d < D, other=0.0)
        tl.store(out_next + row * D + d, total, mask=d < D)
    tl.store(p + row, probability)
    tl.store(cumulative_next + row, after)
    tl.store(halted_next + row, (runs == 0) | (after >= limit))
    tl.store(depth_next + row, tl.load(depth + row) + runs.to(tl.int32))


@triton.jit
def running_kernel(
    halted,  # bool [rows]
    running,  # bool []
    rows,
    BLOCK: tl.constexpr,
):
    """Whether any row has not halted. One program."""
    found = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, rows, BLOCK):
        row = first + tl.arange(0, BLOCK)
        found |= (tl.load(halted + row, mask=row < rows, other=1) == 0).to(tl.int32)
    tl.store(running, tl.max(found, 0) > 0)
