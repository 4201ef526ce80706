"""The model unrolled over a given number of loops, every state kept: what the losses look at.

Inference leaves when a position has halted; training must see the loops behind that too. Both go through
`MythosModel.advance`, so there is one definition of an iteration.

Legend: N loops, B batch, T tokens, D dim, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model.attention import Past
from mythos_model.families.openmythos import MythosModel
from mythos_model.looped import LAYERS
from mythos_model.state import Call, Lines
from mythos_model.taps import recording


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
    positions = torch.arange(T).expand(B, T)
    never, no_length = torch.tensor(torch.inf), torch.zeros(B, dtype=torch.int64)
    past = model.empty_past(B, first + loops)
    call = Call(positions, no_length, torch.tensor(loops), never, torch.tensor(False), past)
    context, _lines = model.enter(ids, call)
    h, states = context.encoded, []
    load = torch.zeros(model.config.n_experts)
    for t in range(loops):
        if detach and detach[t]:
            h = h.detach()
        iteration = torch.tensor(first + t)
        with recording() as seen:
            h = model.advance(h, iteration, Lines(context.stored, iteration), context)
        states.append(h)
        load += torch.bincount(seen.values["experts"][0].flatten(), minlength=len(load)) / (B * T * loops)
    stacked = torch.stack(states)
    return Unrolled(stacked, model.exit.logit(stacked), load, context.past)


def halt(halt_logits: Tensor, threshold: float) -> Halted:
    """The halting rule of `mythos_model.exits.Act`, over all loops at once; halt_logits [N, B, T]."""
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
    layers = model.empty_past(out.shape[0], 1)[LAYERS]
    return model.readout(model.finish(out, Lines(layers, torch.tensor(model.before)), past))


def lens(model: MythosModel, states: Tensor, vocabulary: int | None = None) -> Tensor:
    """What a state says without the coda, over the first `vocabulary` ids: [..., D] -> [..., vocabulary]."""
    return F.linear(model.norm(states), model.embed.weight[:vocabulary])
