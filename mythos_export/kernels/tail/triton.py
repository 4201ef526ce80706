"""mythos::loop_tail in Triton, with the signature and the results of the plain one in `mythos_model.ops`.

Operator by operator it is thirteen launches (of the halting, two); here it is one, of a program for each row. LoRA's
matrices are read by every program: they are small, and come from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.act.triton import halting_share
from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.tail.plan import plans
from mythos_export.kernels.triton_run import execute, precision_of


def loop_tail(
    x: Tensor,
    update: Tensor,
    lora_down: Tensor,
    lora_scale: Tensor,
    lora_up: Tensor,
    h: Tensor,
    decay: Tensor,
    gain: Tensor,
    encoded: Tensor,
    out: Tensor,
    cumulative: Tensor,
    halted: Tensor,
    depth: Tensor,
    weight: Tensor,
    bias: Tensor,
    threshold: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What ends an iteration; arguments and results as `mythos_model.ops.loop_tail`.

    x, update [R, D], lora_down, lora_up [K, D] and lora_scale [R, K] in the model's dtype; all others in float32, but
    for halted and depth -> the new h, out, cumulative, halted and depth.
    """
    precision = precision_of("loop_tail", x, update, lora_down, lora_scale, lora_up)
    if precision_of("loop_tail", h, decay, gain, encoded, out, cumulative, weight, bias, threshold) != "fp32":
        raise ValueError(f"mythos::loop_tail takes a float32 state, found {h.dtype}: it is float32 at any precision")
    lora_scale = lora_scale.expand(len(h), len(lora_down))  # the kernel trusts these sizes
    decay, gain = decay.expand(h.shape[-1]), gain.expand(h.shape[-1])
    given = {
        "x": x,
        "update": update,
        "lora_down": lora_down,
        "lora_scale": lora_scale,
        "lora_up": lora_up,
        "h": h,
        "decay": decay,
        "gain": gain,
        "encoded": encoded,
        "out": out,
        "cumulative": cumulative,
        "halted": halted,
        "depth": depth,
        "weight": weight,
        "threshold": threshold,
    }
    buffers = {name: tensor.contiguous() for name, tensor in given.items()} | {"bias": bias}
    state = {name: buffers[name] for name in ("h", "out", "cumulative", "halted", "depth")}
    results = {f"{name}_next": torch.empty_like(tensor) for name, tensor in state.items()}
    if len(h):
        sizes = {"rows": len(h), "threshold_stride": 1 if threshold.ndim else 0}
        execute(choose(plans(h.shape[-1], len(lora_down), precision), sizes), {**buffers, **results}, sizes)
    h, out, cumulative, halted, depth = results.values()
    return h, out, cumulative, halted, depth


@triton.jit
def tail_kernel(
    x,  # [rows, D]
    update,  # [rows, D]
    lora_down,  # [RANK, D]
    lora_scale,  # [rows, RANK]
    lora_up,  # [RANK, D]
    h,  # float32 [rows, D]
    decay,  # float32 [D]
    gain,  # float32 [D]
    encoded,  # float32 [rows, D]
    out,  # float32 [rows, D]
    cumulative,  # float32 [rows]
    halted,  # bool [rows]
    depth,  # int32 [rows]
    weight,  # float32 [D]
    bias,  # float32 [1]
    threshold,  # float32 [rows] or []
    h_next,
    out_next,
    cumulative_next,
    halted_next,
    depth_next,
    threshold_stride,  # 1, or 0 where all rows have one
    D: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (row). What the operators round to the model's type is rounded here, too."""
    row = tl.program_id(0).to(tl.int64)
    narrow = x.dtype.element_ty
    start = row * D
    rank = tl.arange(0, BLOCK_R)
    real = rank < RANK
    # LoRA's inner values, [RANK]: y down^T, times the scale of this row's depth.
    summed_down = tl.zeros((BLOCK_R,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        y = tl.load(x + start + d, mask=d < D, other=0.0) + tl.load(update + start + d, mask=d < D, other=0.0)
        down = tl.load(lora_down + rank[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0)
        summed_down += tl.sum(down.to(tl.float32) * y.to(tl.float32)[None, :], 1)
    inner = summed_down.to(narrow) * tl.load(lora_scale + row * RANK + rank, mask=real, other=0.0)
    # The new state, and what the halting makes of it.
    summed = tl.zeros((BLOCK_D,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        y = tl.load(x + start + d, mask=d < D, other=0.0) + tl.load(update + start + d, mask=d < D, other=0.0)
        up = tl.load(lora_up + rank[:, None] * D + d[None, :], mask=real[:, None] & (d < D)[None, :], other=0.0)
        y += tl.sum(up.to(tl.float32) * inner.to(tl.float32)[:, None], 0).to(narrow)
        injected = tl.load(gain + d, mask=d < D, other=0.0) * tl.load(encoded + start + d, mask=d < D, other=0.0)
        kept = tl.load(decay + d, mask=d < D, other=0.0) * tl.load(h + start + d, mask=d < D, other=0.0)
        state = kept + injected + y.to(tl.float32)
        tl.store(h_next + start + d, state, mask=d < D)
        summed += state * tl.load(weight + d, mask=d < D, other=0.0)
    limit = tl.load(threshold + row * threshold_stride)
    runs = tl.load(halted + row) == 0
    logit = tl.sum(summed, 0) + tl.load(bias)
    _, share, after = halting_share(logit, tl.load(cumulative + row), limit, runs)
    tl.debug_barrier()  # the state is read again, perhaps by other threads than wrote it
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        total = tl.load(out + start + d, mask=d < D, other=0.0)
        total += share * tl.load(h_next + start + d, mask=d < D, other=0.0)
        tl.store(out_next + start + d, total, mask=d < D)
    tl.store(cumulative_next + row, after)
    tl.store(halted_next + row, (runs == 0) | (after >= limit))
    tl.store(depth_next + row, tl.load(depth + row) + runs.to(tl.int32))
