"""Nanbeige 4.2: a decoder whose layers run twice over. card.md says it exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from mythos_model.attention import GroupedQueryAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, SwiGLU
from mythos_model.exits import Exit, Fixed
from mythos_model.families.nanbeige.config import NanbeigeConfig
from mythos_model.families.nanbeige.names import from_model, to_model
from mythos_model.looped import LoopedModel
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state
from mythos_model.state import Context, Lines, Sizes
from mythos_model.weights import Sources


class Layer(nn.Module):
    """Pre-norm."""

    def __init__(self, c: NanbeigeConfig) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))
        self.attn = GroupedQueryAttention(c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        self.ffn = SwiGLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, lines: Lines, past: Past) -> Tensor:  # [B, T, D]
        x = x + lines.attend(self.attn, self.attn_norm(x), past)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]


class Nanbeige(LoopedModel):
    """Nanbeige 4.2. The loop's state is the hidden state, which begins as the embedding."""

    family: ClassVar[str] = "nanbeige"

    def __init__(self, config: NanbeigeConfig) -> None:
        super().__init__()
        c = self.config = config
        self.slots = c.num_hidden_layers
        self.embed = Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.head = None if c.tie_word_embeddings else nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.rule = Fixed()

    @classmethod
    def sources(cls, config: NanbeigeConfig, state: Mapping[str, Tensor]) -> Sources:
        return to_model(config, state)

    def reference_state(self) -> dict[str, Tensor]:
        return from_model(self.config, plain_state(self))

    @property
    def exit(self) -> Exit:
        return self.rule

    @property
    def sizes(self) -> Sizes:
        c = self.config
        longest = c.max_position_embeddings
        return Sizes(c.vocab_size, c.hidden_size, 2 * c.num_key_value_heads * c.head_dim, longest, longest, c.num_loops)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        c = self.config
        rotary = Rotary.at(positions, c.head_dim, c.rope_theta, accumulation_dtype(self.dtype))
        return Past(positions, past_lengths, rotary)

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        return self.embed(ids)  # type: ignore[no-any-return]

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        for layer in self.layers:
            h = layer(h, lines, context.past)
        return h if self.config.skip_loop_final_norm else self.norm(h).to(context.encoded.dtype)

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        return self.norm(answer) if self.config.skip_loop_final_norm else answer.to(self.dtype)

    def readout(self, x: Tensor) -> Tensor:
        return self.embed.logits(x) if self.head is None else self.head(x)  # type: ignore[no-any-return]
