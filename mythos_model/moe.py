"""Routing, and the mixture of experts."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model import ops, products
from mythos_model.taps import chosen, tap
from mythos_runtime.spec import TraceTensor


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

    Expert weights are stacked, and the shared experts are one SwiGLU of their summed width; a family's names translate
    from and to one tensor per expert. `label` tells several mixtures of one loop apart in what verification shows.
    """

    def __init__(self, dim: int, experts: int, chosen: int, width: int, shared_width: int, label: str = "") -> None:
        super().__init__()
        self.chosen, self.label = chosen, label
        self.router = nn.Linear(dim, experts, bias=False)
        self.router_bias = nn.Parameter(torch.zeros(experts), requires_grad=False)
        self.routed_gate_up = nn.Parameter(torch.empty(experts, 2 * width, dim))
        self.routed_down = nn.Parameter(torch.empty(experts, dim, width))
        self.shared_gate_up = nn.Parameter(torch.empty(2 * shared_width, dim))
        self.shared_down = nn.Parameter(torch.empty(dim, shared_width))

    def route(self, x: Tensor) -> Routing:
        """Choose by biased logits, weigh by the unbiased softmax; in float32, since a near tie changes an expert."""
        wide = ops.accumulation_dtype(x.dtype)
        logits = F.linear(x.to(wide), self.router.weight.to(wide))
        selection = logits + self.router_bias.to(wide)
        choose = torch.ops.mythos.largest if torch.compiler.is_exporting() else ops.largest
        index = tap(choose(selection, self.chosen), f"experts{self.label}")
        chosen(f"experts{self.label}", selection, self.chosen)
        # softmax over all experts, gathered and divided by its sum, is the softmax over the chosen.
        weight = tap(logits.gather(-1, index).softmax(-1), f"weights{self.label}")
        return Routing(index, weight, selection)

    def trace(self) -> tuple[TraceTensor, ...]:
        """What it shows of a loop."""
        dims, experts = ("B", "T", self.chosen), f"experts{self.label}"
        return (
            TraceTensor(experts, "int64", dims, "choice"),
            TraceTensor(f"weights{self.label}", "float32", dims, "chosen", until_halted=True, unit=True, of=experts),
        )

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        routing = self.route(x)
        run = torch.ops.mythos.moe if torch.compiler.is_exporting() else products.moe
        return run(  # type: ignore[no-any-return]
            x,
            routing.experts,
            routing.weight.to(x.dtype),
            self.routed_gate_up,
            self.routed_down,
            self.shared_gate_up,
            self.shared_down,
        )
