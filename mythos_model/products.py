"""The operators that multiply by weights, in plain PyTorch, over every format of `mythos_model.formats`; see `ops`.

Legend for the shape comments: as in `ops`; V rows of an embedding, K inputs. Weights and scales are as `formats` says.
Rounded weights are exact in float32; a product is taken in the dtype of what they are multiplied by. Weights that are
rounded, or narrower than that, are widened some rows at a time: so a model is computed in float64 that would not fit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.formats import FORMATS, PLAIN, Format, Packed, round_activations

_TOGETHER = 1 << 23  # elements of a matrix that are widened at a time
_COPIED = (
    1 << 20
)  # bytes of an expert's matrix, beyond which a copy of the chosen ones costs more than calls one by one


def linear(x: Tensor, weight: Tensor, scale: Tensor | None, rows: int, format: str = PLAIN) -> Tensor:
    """x times a matrix, x @ w^T.

    Args:
        x: [..., K].
        weight, scale: of a matrix [rows, K].
        rows: outputs; rounded weights are padded to whole tiles of them.

    Returns: [..., rows] in x's dtype.
    """
    return _product(x, Packed(weight, scale), rows, FORMATS[format]).contiguous()  # as the tracer is told


def _product(x: Tensor, matrix: Packed, rows: int | None, form: Format) -> Tensor:
    """x [..., K] times a matrix [rows, K], at most _TOGETHER of whose elements are widened at a time."""
    weight, scale = matrix
    if form.name == PLAIN and weight.dtype == x.dtype:
        return F.linear(x, weight)
    if form.activations:
        x = round_activations(x, form.block)
    lines = weight.shape[0]  # tiles of rounded weights
    several = max(_TOGETHER // max(x.shape[-1] * form.tile, 1), 1)  # no inputs: of no shared expert
    parts = [
        F.linear(x, form.unpack(weight[i : i + several], _cut(scale, i, several), None, x.shape[-1]).to(x.dtype))
        for i in range(0, lines, several)
    ]
    if not parts:
        return x.new_empty(*x.shape[:-1], 0)
    return (parts[0] if len(parts) == 1 else torch.cat(parts, -1))[..., :rows]


def _cut(scale: Tensor | None, start: int, count: int) -> Tensor | None:
    return None if scale is None else scale[start : start + count]


def embedding(ids: Tensor, weight: Tensor, scale: Tensor | None, dim: int, format: str = PLAIN) -> Tensor:
    """Rows of a matrix.

    Args:
        ids: int64 [...].
        weight, scale: of a matrix [V, dim].

    Returns: [..., dim], float32 or the plain weight's dtype.
    """
    form = FORMATS[format]
    if format == PLAIN:
        return F.embedding(ids, form.unpack(weight, scale))
    tile = ids // form.tile
    scales = None if scale is None else scale[tile].unsqueeze(-3)
    tiles = form.unpack(weight[tile].unsqueeze(-4), scales, inputs=dim)  # [..., 16, dim]
    return tiles.gather(-2, (ids % form.tile)[..., None, None].expand(*ids.shape, 1, dim)).squeeze(-2)


def moe(
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
    """Mixture of SwiGLU experts, given the routing: the chosen experts' weighted sum plus the shared experts.

    Args:
        x: tokens [..., D].
        expert_index: int64 [..., K], distinct within a row.
        expert_weight: [..., K].
        routed_gate_up: [E, 2F, D]; rows 0..F-1 are the gate, F..2F-1 the up projection. F of rounded weights is the
            experts' width in whole tiles: gate and up are padded apart, by rows of zeros.
        routed_down: [E, D, F].
        shared_gate_up: [2Fs, D]; Fs may be 0, where there is no shared expert.
        shared_down: [D, Fs].
        *_scale: of rounded weights.

    Returns: [..., D] in x's dtype.
    """
    form, shape, width = FORMATS[format], x.shape, x.shape[-1]
    routed = Packed(routed_gate_up, routed_gate_up_scale), Packed(routed_down, routed_down_scale)
    shared = Packed(shared_gate_up, shared_gate_up_scale), Packed(shared_down, shared_down_scale)
    x, expert_index, expert_weight = (rows.flatten(0, -2) for rows in (x, expert_index, expert_weight))  # [n, .]
    y = _expert(x, *shared, width, form)
    at_once = x.is_cuda or routed_down[:1].nbytes <= _COPIED  # which copies them
    if x.shape[0] == 1 and format == PLAIN and routed_down.dtype == x.dtype and at_once:  # decode: the chosen experts
        chosen = expert_index[0]
        gate, up = torch.matmul(routed_gate_up[chosen], x[0]).chunk(2, -1)  # [K, F]
        out = torch.matmul(routed_down[chosen], (F.silu(gate) * up).unsqueeze(-1)).squeeze(-1)  # [K, D]
        return (y + (expert_weight[0].unsqueeze(-1) * out).sum(0, keepdim=True)).view(shape)
    if x.is_cuda and format == PLAIN and groupable(x, routed_gate_up, routed_down):
        return (y + by_expert(x, expert_index, expert_weight, routed_gate_up, routed_down)).view(shape)
    for expert in torch.unique(expert_index).tolist():
        token, slot = torch.where(expert_index == expert)
        gate_up, down = (Packed(w[expert], None if scale is None else scale[expert]) for w, scale in routed)
        out = _expert(x[token], gate_up, down, width, form)
        y = y.index_add(0, token, out * expert_weight[token, slot].unsqueeze(-1))
    return y.contiguous().view(shape)


def expert_sum(parts: Tensor, expert_index: Tensor, expert_weight: Tensor, shared: Tensor) -> Tensor:
    """What `moe` does last, where its experts are computed elsewhere: their weighted sum plus the shared experts.

    Args:
        parts: [..., K, D], what the chosen experts put out.
        expert_index: int64 [..., K], which they are; the CPU kernel sums in their order, as moe's does.
        expert_weight: [..., K].
        shared: [..., D], what the shared experts put out; [0] where there are none.

    Returns: [..., D].
    """
    y = (parts * expert_weight.unsqueeze(-1)).sum(-2)
    return y + shared if shared.numel() else y


def groupable(x: Tensor, gate_up: Tensor, down: Tensor) -> bool:
    """Whether `by_expert` takes them: one dtype, rows of whole 16 bytes, and a PyTorch that has grouped products."""
    widths = (down.shape[1] * x.element_size(), down.shape[2] * x.element_size())
    same = x.dtype == gate_up.dtype == down.dtype
    return same and hasattr(F, "grouped_mm") and all(width % 16 == 0 for width in widths)


def by_expert(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """The chosen experts' weighted sum, [n, D], for a GPU: the rows of an expert side by side, one grouped product.

    Nothing here reads a value back, so that the host need not wait and a CUDA graph can hold it (PyTorch's own fallback
    for what has no grouped kernel, float32 among it, may read the ends). Sums are taken slot by slot: the same call
    gives the same bits.

    Args:
        x: [n, D]. index, weight: int64 and float [n, K]. gate_up, down: [E, 2F, D] and [E, D, F].
    """
    slots = index.shape[1]
    chosen, order = index.flatten().sort(stable=True)
    experts = torch.arange(down.shape[0], device=index.device)
    ends = torch.searchsorted(chosen, experts, right=True).to(torch.int32)
    gate, up = F.grouped_mm(x[order // slots], gate_up.transpose(1, 2), offs=ends).chunk(2, -1)
    sorted_out = F.grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=ends)
    out = torch.empty_like(sorted_out).index_copy(0, order, sorted_out)
    by_slot: Tensor = out.unflatten(0, (-1, slots)) * weight.unsqueeze(-1)
    return by_slot.sum(1)


def _expert(x: Tensor, gate_up: Packed, down: Packed, rows: int, form: Format) -> Tensor:
    """down(silu(gate x) * up x), [n, D]; gate and up of rounded weights are padded apart, to whole tiles."""
    gate, up = _product(x, gate_up, None, form).chunk(2, -1)
    return _product(F.silu(gate) * up, down, rows, form)


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """down(silu(gate x) * up x); x [..., D], gate_up [2F, D], down [D, F] -> [..., D]."""
    gate, up = F.linear(x, gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, down)


_linear_op = torch.library.custom_op("mythos::linear", linear, mutates_args=())
_embedding_op = torch.library.custom_op("mythos::embedding", embedding, mutates_args=())
_moe_op = torch.library.custom_op("mythos::moe", moe, mutates_args=())
_expert_sum_op = torch.library.custom_op("mythos::expert_sum", expert_sum, mutates_args=())


@_linear_op.register_fake
def _(x, weight, scale, rows, format=PLAIN):  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], rows)


@_embedding_op.register_fake
def _(ids, weight, scale, dim, format=PLAIN):  # type: ignore[no-untyped-def]
    return ids.new_empty(*ids.shape, dim, dtype=torch.float32 if format != PLAIN else weight.dtype)


@_moe_op.register_fake
def _(x, *routing_and_weights):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@_expert_sum_op.register_fake
def _(parts, expert_index, expert_weight, shared):  # type: ignore[no-untyped-def]
    return parts.new_empty(*parts.shape[:-2], parts.shape[-1])
