"""The model unrolled over a given number of loops, every state kept: what the losses look at.

Inference leaves when a position has halted; training must see the loops behind that too. Both go through
`RecurrentBlock.advance`, so there is one definition of an iteration.

Legend: N loops, B batch, T tokens, D dim, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.attention import Past
from mythos_model.layers import Rotary
from mythos_model.model import MythosModel


class Unrolled(NamedTuple):
    """Every iteration of one forward pass.

    Attributes:
        states: [N, B, T, D], the recurrent state after each loop.
        halt_logits: [N, B, T], the halting probability before its sigmoid.
        load: [E], share of the tokens (of all loops) that chose each expert; sums to K. No gradient.
        past: positions of the tokens, for `read_out`.
    """

    states: Tensor
    halt_logits: Tensor
    load: Tensor
    past: Past


class Halted(NamedTuple):
    """Adaptive Computation Time (arXiv:1603.08983) over unrolled states.

    Attributes:
        weights: [N, B, T], what each loop contributes; 0 after halting.
        depth: int64 [B, T], loops that contributed.
        ponder: [B, T], loops plus remainder, the paper's cost; only the remainder has a gradient.
    """

    weights: Tensor
    depth: Tensor
    ponder: Tensor


def unroll(model: MythosModel, ids: Tensor, loops: int, first: int = 0, detach: tuple[bool, ...] = ()) -> Unrolled:
    """Run prelude and `loops` iterations on whole sequences.

    Args:
        ids: int64 [B, T].
        loops: iterations.
        first: the loop index that the first iteration is given: a model that was shown several makes less of it, and
            may later run to indices that it never saw.
        detach: per iteration, whether the state that enters it carries no gradient (default: all carry one). Cuts
            back-propagation through the loop short.
    """
    B, T = ids.shape
    config, block = model.config, model.recurrent
    positions = torch.arange(T).expand(B, T)
    rotary = Rotary.at(positions, config.rope_dim, config.rope_theta, torch.float32)
    past = Past(positions, torch.zeros(B, dtype=torch.int64), rotary)
    nothing = model.empty_past(B, first + loops)
    x = model.embed(ids)
    for index, layer in enumerate(model.prelude):
        x, _chunk = layer(x, past, nothing[0], torch.tensor(index))
    never = torch.tensor(torch.inf)
    context = block.context(x, past, nothing[1], torch.tensor(loops), never, torch.tensor(False))
    h, states = context.encoded, []
    load = torch.zeros(config.n_experts)
    for t in range(loops):
        if detach and detach[t]:
            h = h.detach()
        h, _chunk, routing = block.advance(h, torch.tensor(first + t), context)
        states.append(h)
        load += torch.bincount(routing.experts.flatten(), minlength=config.n_experts) / (B * T * loops)
    stacked = torch.stack(states)
    return Unrolled(stacked, block.act.logit(stacked), load, past)


def halt(halt_logits: Tensor, threshold: float) -> Halted:
    """The halting rule of `RecurrentBlock.step`, over all loops at once; halt_logits [N, B, T]."""
    cumulative = torch.zeros_like(halt_logits[0])
    halted = torch.zeros_like(cumulative, dtype=torch.bool)
    remainder = torch.zeros_like(cumulative)
    weights = []
    for p in torch.sigmoid(halt_logits):
        run = (~halted).to(p.dtype)
        last = ~halted & (cumulative + p >= threshold)
        rest = (1 - cumulative).clamp(min=0)
        weights.append(run * torch.where(last, rest, p))
        remainder = torch.where(last, rest, remainder)
        cumulative = cumulative + p * run
        halted = halted | last
    remainder = torch.where(halted, remainder, 1 - cumulative)
    stacked = torch.stack(weights)
    depth = (stacked > 0).sum(0)
    return Halted(stacked, depth, depth + remainder)


def read_out(model: MythosModel, out: Tensor, past: Past) -> Tensor:
    """Coda and tied head: [B, T, D], a state or a weighted sum of states -> logits [B, T, V]."""
    layers = model.empty_past(out.shape[0], 1)[0]
    for index, layer in enumerate(model.coda):
        out, _chunk = layer(out, past, layers, torch.tensor(len(model.prelude) + index))
    return F.linear(model.norm(out), model.embed.weight)


def lens(model: MythosModel, states: Tensor, vocabulary: int | None = None) -> Tensor:
    """What a state says without the coda, over the first `vocabulary` ids: [..., D] -> [..., vocabulary]."""
    return F.linear(model.norm(states), model.embed.weight[:vocabulary])
