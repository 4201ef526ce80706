"""Routing, and the mixture of experts that the recurrent block uses as its feed-forward network."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model import ops
from mythos_model.config import MythosConfig


class Routing(NamedTuple):
    """Where every token goes.

    Attributes:
        experts: int64 [B, T, K], chosen experts, best first.
        weight: [B, T, K] in float32 or better, summing to 1 over K.
        selection: [B, T, E], the biased logits that the choice was made by.
    """

    experts: Tensor
    weight: Tensor
    selection: Tensor


class MixtureOfExperts(nn.Module):
    """Top-K routed SwiGLU experts plus shared experts, with a selection bias (https://arxiv.org/abs/2408.15664).

    Expert weights are stacked, and the shared experts are one SwiGLU of their summed width; `mythos_model.stacking`
    translates from and to the reference's one tensor per expert.
    """

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        D, E, width, shared = config.dim, config.n_experts, config.expert_dim, config.shared_ffn_dim
        self.chosen = config.n_experts_per_tok
        self.router = nn.Linear(D, E, bias=False)
        self.router_bias = nn.Parameter(torch.zeros(E), requires_grad=False)
        self.routed_gate_up = nn.Parameter(torch.empty(E, 2 * width, D))
        self.routed_down = nn.Parameter(torch.empty(E, D, width))
        self.shared_gate_up = nn.Parameter(torch.empty(2 * shared, D))
        self.shared_down = nn.Parameter(torch.empty(D, shared))

    def route(self, x: Tensor) -> Routing:
        """Choose by biased logits, weigh by the unbiased softmax; in float32, since a near tie changes an expert."""
        wide = ops.accumulation_dtype(x.dtype)
        logits = F.linear(x.to(wide), self.router.weight.to(wide))
        selection = logits + self.router_bias.to(wide)
        index = selection.topk(self.chosen, -1).indices
        # softmax over all experts, gathered and divided by its sum, is the softmax over the chosen.
        return Routing(index, logits.gather(-1, index).softmax(-1), selection)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """x [B, T, D] -> (y [B, T, D], the routing it took)."""
        routing = self.route(x)
        run = torch.ops.mythos.moe if torch.compiler.is_exporting() else ops.moe
        y = run(
            x,
            routing.experts,
            routing.weight.to(x.dtype),
            self.routed_gate_up,
            self.routed_down,
            self.shared_gate_up,
            self.shared_down,
        )
        return y, routing
