"""mythos::moe in Triton: `moe` has the signature and the result of `mythos_model.ops.moe`, for tensors on a GPU.

Decode follows Shazeer 2020 (GLU variants, https://arxiv.org/abs/2002.05202) expert by expert; prefill groups rows by
expert into blocks of one dense product each, as MegaBlocks does (https://arxiv.org/abs/2211.15841). Everything is
summed in float32 and in a fixed order: no atomics, so the same call gives the same bits.

`plan.py` says when which kernels run, and on which grid. Legend: n tokens, K slots (experts chosen by a token),
pair = token * K + slot, D dim, F width of an expert, FS of the shared experts.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mythos_export.kernels.launch_plan import choose
from mythos_export.kernels.moe.plan import plans
from mythos_export.kernels.triton_run import check_weights, execute, precision_of


def moe(
    x: Tensor,
    expert_index: Tensor,
    expert_weight: Tensor,
    routed_gate_up: Tensor,
    routed_down: Tensor,
    shared_gate_up: Tensor,
    shared_down: Tensor,
) -> Tensor:
    """Mixture of SwiGLU experts, given the routing; arguments as `mythos_model.ops.moe`.

    x [..., D], expert_index int64 [..., K], expert_weight [..., K], routed_gate_up [E, 2F, D], routed_down [E, D, F],
    shared_gate_up [2Fs, D], shared_down [D, Fs] -> [..., D], all floats of one dtype. Nothing is read back from the
    GPU, so an index outside 0..E-1 is not noticed: it must not occur.
    """
    precision = precision_of("moe", x, expert_weight, routed_gate_up, routed_down, shared_gate_up, shared_down)
    check_weights(
        "moe",
        routed_gate_up=routed_gate_up,
        routed_down=routed_down,
        shared_gate_up=shared_gate_up,
        shared_down=shared_down,
    )
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if not x.numel():
        return out
    E, D, F = routed_down.shape
    sizes = {"n": x.numel() // D}
    plan = choose(plans(D, F, shared_down.shape[1], E, expert_index.shape[-1], precision), sizes)
    buffers = {
        "x": x.contiguous(),
        "expert_index": expert_index.contiguous(),
        "expert_weight": expert_weight.contiguous(),
        "routed_gate_up": routed_gate_up,
        "routed_down": routed_down,
        "shared_gate_up": shared_gate_up,
        "shared_down": shared_down,
        "out": out,
    }
    execute(plan, buffers, sizes)
    return out


# -- decode: one token a program, matrix times vector ------------------------------------------------------------------


@triton.jit
def line_of(index, width: tl.constexpr, count: tl.constexpr):
    """Where lines of a matrix of `count` begin. The shared experts of 100b have more values than 32 bits count."""
    if count * width >= 2**31:
        index = index.to(tl.int64)
    return index * width


@triton.jit
def _hidden_rows(x, gate_up, f, F: tl.constexpr, D: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_D: tl.constexpr):
    """silu(gate x) * up x for the hidden units f [BLOCK_F] of one expert; x [D], gate_up [2F, D]."""
    gate = tl.zeros((BLOCK_F,), tl.float32)
    up = tl.zeros((BLOCK_F,), tl.float32)
    for d0 in range(0, D, BLOCK_D):
        d = d0 + tl.arange(0, BLOCK_D)
        value = tl.load(x + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
        there = (f < F)[:, None] & (d < D)[None, :]
        row = gate_up + line_of(f, D, F)[:, None] + d[None, :]
        gate += tl.sum(tl.load(row, mask=there, other=0.0).to(tl.float32) * value, 1)
        up += tl.sum(tl.load(row + F * D, mask=there, other=0.0).to(tl.float32) * value, 1)
    return gate * tl.sigmoid(gate) * up


@triton.jit
def decode_up_kernel(
    x,  # [n, D]
    expert_index,  # int64 [n, TOP_K]
    expert_weight,  # [n, TOP_K]
    routed_gate_up,  # [E, 2F, D]
    shared_gate_up,  # [2FS, D]
    hidden,  # float32 [n, TOP_K * F + FS]: the slots one after another, then the shared experts
    TOP_K: tl.constexpr,
    F: tl.constexpr,
    FS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Hidden units of the chosen and the shared experts, already times the routing weight.

    Program (token, block): blocks 0 .. TOP_K * cdiv(F, BLOCK_F) - 1 are the slots', the others the shared experts'.
    """
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    BLOCKS: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    x += token * D
    hidden += token * (TOP_K * F + FS)
    if block < TOP_K * BLOCKS:
        slot = block // BLOCKS
        f = (block % BLOCKS) * BLOCK_F + tl.arange(0, BLOCK_F)
        expert = tl.load(expert_index + token * TOP_K + slot)
        weight = tl.load(expert_weight + token * TOP_K + slot).to(tl.float32)
        value = _hidden_rows(x, routed_gate_up + expert * (2 * F * D), f, F, D, BLOCK_F, BLOCK_D)
        tl.store(hidden + slot * F + f, value * weight, mask=f < F)
    else:
        f = (block - TOP_K * BLOCKS) * BLOCK_F + tl.arange(0, BLOCK_F)
        value = _hidden_rows(x, shared_gate_up, f, FS, D, BLOCK_F, BLOCK_D)
        tl.store(hidden + TOP_K * F + f, value, mask=f < FS)


@triton.jit
def _down_rows(total, hidden, down, d, F: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_F: tl.constexpr):
    """total + down[d] . hidden; hidden float32 [F], down [D, F], d [BLOCK_D]."""
    for f0 in range(0, F, BLOCK_F):
        f = f0 + tl.arange(0, BLOCK_F)
        value = tl.load(hidden + f, mask=f < F, other=0.0)[None, :]
        there = (d < D)[:, None] & (f < F)[None, :]
        total += tl.sum(
            tl.load(down + line_of(d, F, D)[:, None] + f[None, :], mask=there, other=0.0).to(tl.float32) * value, 1
        )
    return total


@triton.jit
def decode_down_kernel(
    hidden,  # float32 [n, TOP_K * F + FS]
    expert_index,  # int64 [n, TOP_K]
    routed_down,  # [E, D, F]
    shared_down,  # [D, FS]
    out,  # [n, D]
    TOP_K: tl.constexpr,
    F: tl.constexpr,
    FS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_F: tl.constexpr,
):
    """Program (token, block of D): the sum over slots and shared experts, slot by slot."""
    token = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    hidden += token * (TOP_K * F + FS)
    total = tl.zeros((BLOCK_D,), tl.float32)
    for slot in range(TOP_K):
        expert = tl.load(expert_index + token * TOP_K + slot)
        total = _down_rows(total, hidden + slot * F, routed_down + expert * (D * F), d, F, D, BLOCK_D, BLOCK_F)
    total = _down_rows(total, hidden + TOP_K * F, shared_down, d, FS, D, BLOCK_D, BLOCK_F)
    tl.store(out + token * D + d, total.to(out.dtype.element_ty), mask=d < D)


# -- prefill: rows grouped by expert, matrix times matrix --------------------------------------------------------------


@triton.jit
def count_kernel(
    expert_index,  # int64 [n, K], read as [pairs]
    counts,  # int32 [CHUNKS, BLOCK_E]
    pairs,
    chunk,  # pairs that a program looks at
    BLOCK_E: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
):
    """How many pairs of a chunk chose each expert. Program (chunk)."""
    expert = tl.arange(0, BLOCK_E)
    first = tl.program_id(0) * chunk
    found = tl.zeros((BLOCK_E,), tl.int32)
    for start in range(first, tl.minimum(first + chunk, pairs), BLOCK_PAIRS):
        pair = start + tl.arange(0, BLOCK_PAIRS)
        chosen = tl.load(expert_index + pair, mask=pair < pairs, other=-1).to(tl.int32)
        found += tl.sum((chosen[:, None] == expert[None, :]).to(tl.int32), 0)
    tl.store(counts + tl.program_id(0) * BLOCK_E + expert, found)


@triton.jit
def group_kernel(
    expert_index,  # int64 [n, K], read as [pairs]
    counts,  # int32 [CHUNKS, BLOCK_E]
    sorted_pairs,  # int32 [blocks, BLOCK_M]: pairs by expert, in order; `pairs` where a block has no row
    block_expert,  # int32 [blocks]: the expert of a block, -1 behind the last
    pairs,
    blocks,
    chunk,
    BLOCK_E: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Counting sort of the pairs by expert, each expert padded to whole blocks; stable. Program (chunk): it adds up
    what all chunks counted, and places its own pairs behind those of the chunks before it."""
    expert = tl.arange(0, BLOCK_E)
    own, chunks = tl.program_id(0), tl.num_programs(0)
    total = tl.zeros((BLOCK_E,), tl.int32)
    before = tl.zeros((BLOCK_E,), tl.int32)
    for other in range(chunks):
        found = tl.load(counts + other * BLOCK_E + expert)
        total += found
        before += tl.where(other < own, found, 0)
    padded = (total + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    end = tl.cumsum(padded, 0)
    start = end - padded

    if own == 0:
        # Only the rows behind an expert's last pair are filled here: the others are written once, below.
        for row in range(BLOCK_M):
            unused = start + total + row
            tl.store(sorted_pairs + unused, tl.zeros_like(unused) + pairs, mask=unused < end)
        rows = tl.max(end, 0)
        for first in range(0, blocks, BLOCK_PAIRS):
            block = first + tl.arange(0, BLOCK_PAIRS)
            ended = tl.sum((end[None, :] <= (block * BLOCK_M)[:, None]).to(tl.int32), 1)
            tl.store(block_expert + block, tl.where(block * BLOCK_M < rows, ended, -1), mask=block < blocks)

    place = start + before
    for first in range(own * chunk, tl.minimum((own + 1) * chunk, pairs), BLOCK_PAIRS):
        pair = first + tl.arange(0, BLOCK_PAIRS)
        chosen = tl.load(expert_index + pair, mask=pair < pairs, other=-1).to(tl.int32)
        hit = (chosen[:, None] == expert[None, :]).to(tl.int32)
        rank = tl.cumsum(hit, 0) - hit
        at = tl.sum(hit * (place[None, :] + rank), 1)
        tl.store(sorted_pairs + at, pair, mask=pair < pairs)
        place += tl.sum(hit, 0)


@triton.jit
def prefill_up_kernel(
    x,  # [n, D]
    gate_up,  # [E, 2F, D], or [2F, D] where not GROUPED
    expert_weight,  # [n, TOP_K]
    sorted_pairs,  # int32 [blocks, BLOCK_M]
    block_expert,  # int32 [blocks]
    hidden,  # [rows, F]
    rows,  # pairs, or n where not GROUPED
    GROUPED: tl.constexpr,
    TOP_K: tl.constexpr,
    F: tl.constexpr,
    D: tl.constexpr,
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
        gate_up += expert.to(tl.int64) * (2 * F * D)
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
        weight = gate_up + line_of(f, D, F)[None, :] + d[:, None]
        there = (d < D)[:, None] & (f < F)[None, :]
        gate = tl.dot(value, tl.load(weight, mask=there, other=0.0), gate, input_precision=PRECISION)
        up = tl.dot(value, tl.load(weight + F * D, mask=there, other=0.0), up, input_precision=PRECISION)
    result = gate * tl.sigmoid(gate) * up
    if GROUPED:
        result *= tl.load(expert_weight + row, mask=live, other=0.0).to(tl.float32)[:, None]
    tl.store(
        hidden + row.to(tl.int64)[:, None] * F + f[None, :],
        result.to(hidden.dtype.element_ty),
        mask=live[:, None] & (f < F)[None, :],
    )


@triton.jit
def _dot_rows(
    hidden,
    row,
    live,
    down,
    d,
    F: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """hidden[row] . down[d] as float32 [BLOCK_M, BLOCK_N]; hidden [., F], down [D, F]."""
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for f0 in range(0, F, BLOCK_K):
        f = f0 + tl.arange(0, BLOCK_K)
        left = tl.load(
            hidden + row.to(tl.int64)[:, None] * F + f[None, :], mask=live[:, None] & (f < F)[None, :], other=0.0
        )
        right = tl.load(
            down + line_of(d, F, D)[None, :] + f[:, None], mask=(f < F)[:, None] & (d < D)[None, :], other=0.0
        )
        total = tl.dot(left, right, total, input_precision=PRECISION)
    return total


@triton.jit
def prefill_routed_down_kernel(
    hidden,  # [pairs, F]
    down,  # [E, D, F]
    sorted_pairs,  # int32 [blocks, BLOCK_M]
    block_expert,  # int32 [blocks]
    routed,  # float32 [pairs, D]
    rows,  # pairs
    F: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """What each pair's expert gives, put back in the pairs' order."""
    block = tl.program_id(0)
    d = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    expert = tl.load(block_expert + block)
    if expert < 0:
        return
    row = tl.load(sorted_pairs + block * BLOCK_M + tl.arange(0, BLOCK_M))
    live = row < rows
    down += expert.to(tl.int64) * (D * F)
    total = _dot_rows(hidden, row, live, down, d, F, D, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)
    tl.store(routed + row.to(tl.int64)[:, None] * D + d[None, :], total, mask=live[:, None] & (d < D)[None, :])


@triton.jit
def prefill_shared_down_kernel(
    hidden,  # [n, F]
    down,  # [D, F]; F may be 0
    routed,  # float32 [n, TOP_K, D]
    out,  # [n, D]
    rows,  # n
    TOP_K: tl.constexpr,
    F: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The shared experts' share of a block of tokens plus the sum over their slots, slot by slot."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live = row < rows
    there = live[:, None] & (d < D)[None, :]
    total = _dot_rows(hidden, row, live, down, d, F, D, BLOCK_M, BLOCK_N, BLOCK_K, PRECISION)
    for slot in range(TOP_K):
        pair = row.to(tl.int64) * TOP_K + slot
        total += tl.load(routed + pair[:, None] * D + d[None, :], mask=there, other=0.0)
    tl.store(out + row.to(tl.int64)[:, None] * D + d[None, :], total.to(out.dtype.element_ty), mask=there)
