"""Huginn ("A recurrent-depth approach", arXiv:2502.05171): prelude, core layers looped from a random state, coda."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from mythos_model.attention import GroupedQueryAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, SwiGLU
from mythos_model.exits import Converged, Divergence, EntropyDiff, Exit, MinPDivergence, StableChoice
from mythos_model.families.huginn.config import CUT, HuginnConfig
from mythos_model.families.huginn.names import from_model, to_model
from mythos_model.looped import LoopedModel
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state
from mythos_model.state import Context, Lines, Sizes
from mythos_model.weights import Sources
from mythos_runtime.spec import StateTensor

ANSWERED = {rule.name: rule for rule in (EntropyDiff, Divergence, MinPDivergence, StableChoice)}


class Block(nn.Module):
    """The residual stream itself is normed, after attention and after the feed-forward network."""

    def __init__(self, c: HuginnConfig) -> None:
        super().__init__()
        self.attn_norm, self.attn_out_norm = RMSNorm(c.n_embd, c.norm_eps), RMSNorm(c.n_embd, c.norm_eps)
        self.ffn_norm, self.ffn_out_norm = RMSNorm(c.n_embd, c.norm_eps), RMSNorm(c.n_embd, c.norm_eps)
        self.attn = GroupedQueryAttention(c.n_embd, c.n_heads, c.n_heads, c.head_dim, qk_bias=True)
        self.ffn = SwiGLU(c.n_embd, c.intermediate_size)

    def forward(self, x: Tensor, lines: Lines, past: Past) -> Tensor:  # [B, T, D]
        x = self.attn_out_norm(lines.attend(self.attn, self.attn_norm(x), past) + x)
        return self.ffn_out_norm(self.ffn(self.ffn_norm(x)) + x)  # type: ignore[no-any-return]


class Huginn(LoopedModel):
    """Huginn. Nothing depends on the number of a loop but its cache."""

    family: ClassVar[str] = "huginn"

    def __init__(self, config: HuginnConfig) -> None:
        super().__init__()
        c = self.config = config
        self.before, self.after, self.slots = c.n_layers_in_prelude, c.n_layers_in_coda, c.n_layers_in_recurrent_block
        self.embed = Embedding(c.padded_vocab_size, c.n_embd)
        self.prelude = nn.ModuleList(Block(c) for _ in range(self.before))
        self.adapter = nn.Linear(2 * c.n_embd, c.n_embd, bias=False)
        self.core = nn.ModuleList(Block(c) for _ in range(self.slots))
        self.coda = nn.ModuleList(Block(c) for _ in range(self.after))
        self.norm = RMSNorm(c.n_embd, c.norm_eps)
        self.rule: Exit
        if c.exit in ANSWERED:
            self.rule = ANSWERED[c.exit](c.padded_vocab_size, c.threshold)
        else:
            self.rule = Converged(c.exit, c.threshold)

    @classmethod
    def sources(cls, config: HuginnConfig, state: Mapping[str, Tensor]) -> Sources:
        return to_model(config, state)

    def reference_state(self) -> dict[str, Tensor]:
        return from_model(self.config, plain_state(self))

    @property
    def exit(self) -> Exit:
        return self.rule

    @property
    def initial(self) -> StateTensor:
        c = self.config
        scale = c.init_std * math.sqrt(c.n_embd) * c.init_scale
        return StateTensor("h", "float32", ("B", "T", c.n_embd), "noise", scale, CUT)

    @property
    def sizes(self) -> Sizes:
        c = self.config
        return Sizes(c.padded_vocab_size, c.n_embd, 2 * c.n_embd, c.block_size, c.block_size, c.mean_recurrence)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        c = self.config
        rotary = Rotary.at(positions, c.head_dim, c.rope_base, accumulation_dtype(self.dtype))
        return Past(positions, past_lengths, rotary)

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        x = self.embed(ids) * math.sqrt(self.config.n_embd)
        for block in self.prelude:
            x = block(x, lines, past)
        return x  # type: ignore[no-any-return]

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        x = self.adapter(torch.cat([h, context.encoded], -1).to(self.dtype))
        for block in self.core:
            x = block(x, lines, context.past)
        return x.to(h.dtype)  # type: ignore[no-any-return]

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        x = self.norm(answer)
        for block in self.coda:
            x = block(x, lines, past)
        return x  # type: ignore[no-any-return]

    def readout(self, x: Tensor) -> Tensor:
        return self.embed.logits(self.norm(x))
