"""The heavy operators of the model in plain PyTorch, and their registration as `torch.ops.mythos.*`.

Eager code calls the functions below directly, so they are differentiable and easy to step through. While
`torch.export` traces, the same functions are reached through `torch.library`, so that each stays one node in the
captured program, whatever the back end does with it later.

Legend for the shape comments: B batch, T new tokens, S capacity of the past, L stacked layers or loop depths,
D dim, H heads, G kv heads, R kv_lora_rank, P rotary width, C cache width, E experts, K chosen experts, F expert width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mythos_model.products import embedding, expert_sum, linear, moe, swiglu  # noqa: F401  (operators as well, of their own file)

# Large, yet finite in float32: a row that may attend to nothing must stay free of NaN.
MASKED = -1e30


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x * rsqrt(mean(x^2) + eps) * weight over the last axis; the mean is taken in float32 or better.

    Args:
        x: [..., D]; may be wider than the weight, since the loop keeps its state in float32.
        weight: [D]; None where a norm has none.
        eps: what keeps a row of zeros finite.

    Returns: [..., D] in the weight's dtype; without a weight, in x's.
    """
    narrow = x.dtype if weight is None else weight.dtype
    wide = x.to(torch.promote_types(x.dtype, accumulation_dtype(narrow)))
    normed = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(narrow)
    return normed if weight is None else normed * weight


def rotary_embedding(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Rotate adjacent pairs (2i, 2i+1) of every head (RoFormer, arXiv:2104.09864), in the dtype of the angles.

    Args:
        x: [..., heads * P].
        cos, sin: [..., P/2] of the positions' angles.

    Returns: x's shape and dtype.
    """
    even, odd = x.to(cos.dtype).unflatten(-1, (heads, -1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    rotated = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return rotated.flatten(-3).to(x.dtype)


def largest(x: Tensor, count: int) -> Tensor:
    """Where the `count` largest of the last axis are, int64 [..., count], the largest first; of equal ones the first.

    `topk` leaves open which of equal ones it takes, ONNX does not: two experts that a router cannot tell apart would be
    another choice in every runner.
    """
    return x.sort(dim=-1, descending=True, stable=True).indices[..., :count].contiguous()


def halting_logit(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """weight . h + bias; h [..., D], weight [1, D], bias [1] -> [...]."""
    return (h * weight).sum(-1) + bias


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
    """One iteration of Adaptive Computation Time (arXiv:1603.08983): what a new state adds, and who halts with it.

    All floats are float32 (float64 in a float64 model), whatever the precision of the model.

    Args:
        h: [B, T, D], the new state.
        out: [B, T, D], the halting-weighted sum of the states before it.
        cumulative: [B, T], halting probability summed before it.
        halted: bool [B, T], positions that take no part.
        depth: int32 [B, T], states that contributed before it.
        weight, bias: [1, D] and [1], of the halting probability p = sigmoid(weight . h + bias).
        threshold: [] or [B, T], the cumulative probability at which a position halts.

    Returns: p [B, T]; out, cumulative, halted and depth with the new state; bool [], whether any position runs on.
    """
    # Written out: ONNX Runtime's own Sigmoid flushes its tail to zero, and these small values are summed.
    p = 1 / (1 + torch.exp(-halting_logit(h, weight, bias)))
    running = ~halted
    run = running.to(h.dtype)
    # The last contribution takes what is left of 1. A position that never gets there takes no remainder.
    remainder = (1 - cumulative).clamp(min=0)
    share = run * torch.where(cumulative + p >= threshold, remainder, p)
    out = out + share.unsqueeze(-1) * h
    depth = depth + running.to(depth.dtype)
    cumulative = cumulative + p * run
    halted = halted | (cumulative >= threshold)
    return p, out, cumulative, halted, depth, (~halted).any()


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
    """What ends an iteration of OpenMythos over packed rows: the block's last residual, LoRA, the injection and the
    halting, in the order and the dtypes in which the operators apart compute them.

    No model calls it: who runs the row graphs on a GPU puts it in their place (`mythos_runtime.engine.device.tail`).

    Args:
        x, update: [R, D], the residual stream and what the experts add to it.
        lora_down, lora_up: [K, D]. lora_scale: [R, K], of the rows' depths.
        h, encoded: [R, D], the state and what is injected into it.
        decay, gain: [D], the injection's factors on the two.
        out, cumulative, halted, depth, weight, bias, threshold: as in `act_halting`, of rows R in place of [B, T].

    Returns: the new h, out, cumulative, halted and depth.
    """
    y = x + update
    y = y + torch.matmul(torch.nn.functional.linear(y, lora_down) * lora_scale, lora_up)
    h = decay * h + gain * encoded + y.to(h.dtype)
    _p, *ahead, _running = act_halting(h, out, cumulative, halted, depth, weight, bias, threshold)
    out, cumulative, halted, depth = ahead
    return h, out, cumulative, halted, depth


def mla_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    past: Tensor,
    layer: Tensor,
    chunk: Tensor,
    positions: Tensor,
    past_lengths: Tensor,
    kv_up: Tensor,
    scale: float,
    v_head_dim: int,
) -> Tensor:
    """Multi-head latent attention over a latent cache and the new chunk.

    Two forms compute the same: absorbed (the up-projections are moved to the query and the output, so that scores are
    taken against the latents themselves) and expanded (keys and values are made per head). The one that needs fewer
    multiplications is taken.

    Args:
        q_nope: [B, T, H, nope]; q_rope: [B, T, H, P], rotated.
        past: [L, B, S, C] with C = R + P: normed latent, then the shared rotated key.
        layer: int64 [], the slice of `past` to read.
        chunk: [B, T, C], the new tokens' entries.
        positions: int64 [B, T], absolute; -1 marks padding, which neither attends nor is attended to.
        past_lengths: int64 [B]; entries of `past` from there on are never used.
        kv_up: [H * (nope + v), R].
        scale: factor on the scores.
        v_head_dim: v.

    Returns: [B, T, H * v]; zeros where a position is -1.
    """
    B, T, H, nope = q_nope.shape
    R = kv_up.shape[1]
    w_uk, w_uv = kv_up.view(H, nope + v_head_dim, R).split([nope, v_head_dim], 1)  # [H, nope, R], [H, v, R]
    keys, mask = _keys_and_mask(past, layer, chunk, positions, past_lengths)  # [B, S+T, C], [B, 1, T, S+T]
    form = (
        mla_absorbed if absorbed_is_cheaper(T, keys.shape[1], nope, v_head_dim, R, q_rope.shape[-1]) else mla_expanded
    )
    out = form(q_nope.transpose(1, 2), q_rope.transpose(1, 2), keys, mask, w_uk, w_uv, scale)  # [B, H, T, v]
    return _heads_to_rows(out, positions)


def absorbed_is_cheaper(tokens: int, keys: int, nope: int, v: int, latent: int, rope: int) -> bool:
    """Whether the absorbed form multiplies less, per head, for `tokens` queries over `keys` keys."""
    absorbed = tokens * latent * (nope + v) + tokens * keys * (2 * latent + rope)
    expanded = keys * latent * (nope + v) + tokens * keys * (nope + rope + v)
    return absorbed <= expanded


def mla_absorbed(
    q_nope: Tensor, q_rope: Tensor, keys: Tensor, mask: Tensor, w_uk: Tensor, w_uv: Tensor, scale: float
) -> Tensor:
    """Scores against the latents: q_nope [B,H,T,nope], q_rope [B,H,T,P], keys [B,S,C] -> [B,H,T,v]."""
    latent = keys[..., : w_uk.shape[-1]].unsqueeze(1)  # [B, 1, S, R]
    query = torch.cat([torch.matmul(q_nope, w_uk), q_rope], -1)  # [B, H, T, C]
    scores = torch.matmul(query, keys.unsqueeze(1).transpose(-1, -2))
    return torch.matmul(torch.matmul(_softmax(scores, mask, scale), latent), w_uv.transpose(-1, -2))


def mla_expanded(
    q_nope: Tensor, q_rope: Tensor, keys: Tensor, mask: Tensor, w_uk: Tensor, w_uv: Tensor, scale: float
) -> Tensor:
    """Keys and values per head, as the reference writes it; the same arguments and result as `mla_absorbed`."""
    latent, k_rope = keys.unsqueeze(1).split([w_uk.shape[-1], q_rope.shape[-1]], -1)  # [B,1,S,R], [B,1,S,P]
    k_nope, v = torch.matmul(latent, w_uk.transpose(-1, -2)), torch.matmul(latent, w_uv.transpose(-1, -2))
    scores = torch.matmul(q_nope, k_nope.transpose(-1, -2)) + torch.matmul(q_rope, k_rope.transpose(-1, -2))
    return torch.matmul(_softmax(scores, mask, scale), v)


def gqa_attention(
    q: Tensor,
    past: Tensor,
    layer: Tensor,
    chunk: Tensor,
    positions: Tensor,
    past_lengths: Tensor,
    scale: float,
    kv_heads: int,
) -> Tensor:
    """Grouped-query attention over a cache and the new chunk.

    Args:
        q: [B, T, H, hd], rotated.
        past: [L, B, S, C] with C = 2 * G * hd: the rotated keys of every kv head, then the values.
        layer, chunk, positions, past_lengths, scale: as in `mla_attention`.
        kv_heads: G; kv head g serves query heads g*(H/G) .. (g+1)*(H/G)-1.

    Returns: [B, T, H * hd]; zeros where a position is -1.
    """
    B, T, H, hd = q.shape
    G = kv_heads
    keys, mask = _keys_and_mask(past, layer, chunk, positions, past_lengths)
    k, v = keys.view(B, -1, 2, G, hd).permute(2, 0, 3, 1, 4).unbind(0)  # [B, G, S+T, hd] each
    grouped = q.transpose(1, 2).reshape(B, G, H // G * T, hd)  # heads of one group share their keys
    scores = torch.matmul(grouped, k.transpose(-1, -2)).view(B, H, T, -1)
    weights = _softmax(scores, mask, scale).view(B, G, H // G * T, -1)
    return _heads_to_rows(torch.matmul(weights, v).view(B, H, T, hd), positions)


def _keys_and_mask(
    past: Tensor, layer: Tensor, chunk: Tensor, positions: Tensor, past_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows that may be attended to [B, S+T, C] and, additive, who may attend to which [B, 1, T, S+T]."""
    T, S = chunk.shape[1], past.shape[2]
    if S == 0:
        keys = chunk
    else:
        stored = past.index_select(0, layer.view(1)).squeeze(0)
        # What is behind a row's length is not data: a NaN there would survive a weight of zero.
        valid = torch.arange(S, device=past.device) < past_lengths.unsqueeze(1)
        keys = torch.cat([stored.masked_fill(~valid.unsqueeze(-1), 0), chunk], 1)
    in_past = (torch.arange(S, device=past.device) < past_lengths.view(-1, 1, 1)).expand(-1, T, -1)
    in_chunk = (positions.unsqueeze(1) >= 0) & (positions.unsqueeze(1) <= positions.unsqueeze(2))
    allowed = torch.cat([in_past, in_chunk], 2).unsqueeze(1)
    mask = torch.zeros(allowed.shape, dtype=accumulation_dtype(chunk.dtype), device=chunk.device)
    return keys, mask.masked_fill(~allowed, MASKED)


def _softmax(scores: Tensor, mask: Tensor, scale: float) -> Tensor:
    return torch.softmax(scores.to(mask.dtype) * scale + mask, -1).to(scores.dtype)


def _heads_to_rows(out: Tensor, positions: Tensor) -> Tensor:
    """[B, H, T, v] -> [B, T, H * v], padding rows set to zero."""
    B, H, T, v = out.shape
    rows = out.transpose(1, 2).reshape(B, T, H * v)
    return rows.masked_fill((positions < 0).unsqueeze(-1), 0)


def tap(x: Tensor, name: str) -> Tensor:
    """x under a name; see `mythos_model.taps`."""
    return x.clone()  # an operator may not return its argument


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for the half precisions, the dtype itself otherwise: what sums, norms and halting are kept in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


# -- the same functions as operators that torch.export keeps whole ---------------------------------------------------

_mla_op = torch.library.custom_op("mythos::mla_attention", mla_attention, mutates_args=())
_gqa_op = torch.library.custom_op("mythos::gqa_attention", gqa_attention, mutates_args=())
_act_op = torch.library.custom_op("mythos::act_halting", act_halting, mutates_args=())
_tail_op = torch.library.custom_op("mythos::loop_tail", loop_tail, mutates_args=())

_tap_op = torch.library.custom_op("mythos::tap", tap, mutates_args=())
_tap_op.register_fake(lambda x, name: torch.empty_like(x))

_largest_op = torch.library.custom_op("mythos::largest", largest, mutates_args=())
_norm_op = torch.library.custom_op("mythos::rms_norm", rms_norm, mutates_args=())
_rotary_op = torch.library.custom_op("mythos::rotary_embedding", rotary_embedding, mutates_args=())


@_largest_op.register_fake
def _largest_shape(x: Tensor, count: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], count, dtype=torch.int64)


@_norm_op.register_fake
def _(x, weight, eps):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, dtype=(x if weight is None else weight).dtype)


@_rotary_op.register_fake
def _(x, cos, sin, heads):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


@_mla_op.register_fake
def _(q_nope, q_rope, past, layer, chunk, positions, past_lengths, kv_up, scale, v_head_dim):  # type: ignore[no-untyped-def]
    B, T, H, _nope = q_nope.shape
    return q_nope.new_empty(B, T, H * v_head_dim)


@_gqa_op.register_fake
def _(q, past, layer, chunk, positions, past_lengths, scale, kv_heads):  # type: ignore[no-untyped-def]
    B, T, H, hd = q.shape
    return q.new_empty(B, T, H * hd)


@_act_op.register_fake
def _(h, out, cumulative, halted, depth, weight, bias, threshold):  # type: ignore[no-untyped-def]
    like = torch.empty_like
    return like(cumulative), like(out), like(cumulative), like(halted), like(depth), halted.new_empty(())


@_tail_op.register_fake
def _(x, update, lora_down, lora_scale, lora_up, h, decay, gain, encoded, out, cumulative, halted, depth, *halting):  # type: ignore[no-untyped-def]
    return tuple(torch.empty_like(tensor) for tensor in (h, out, cumulative, halted, depth))
