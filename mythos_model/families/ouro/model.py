"""Ouro ("LoopLM", arXiv:2510.25741): the whole decoder is the loop, its final norm inside. card.md says it exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from mythos_model.attention import GroupedQueryAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, SwiGLU
from mythos_model.exits import Exit, Expectation, Quantile
from mythos_model.families.ouro.config import OuroConfig
from mythos_model.families.ouro.names import from_model, to_model
from mythos_model.looped import LoopedModel
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state
from mythos_model.state import Context, Lines, Sizes
from mythos_model.weights import Sources


class Layer(nn.Module):
    """Sandwich norms: what attention and feed-forward network add is normed before and after."""

    def __init__(self, c: OuroConfig) -> None:
        super().__init__()
        self.attn_norm, self.attn_out_norm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))
        self.ffn_norm, self.ffn_out_norm = (RMSNorm(c.hidden_size, c.rms_norm_eps) for _ in range(2))
        self.attn = GroupedQueryAttention(c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim)
        self.ffn = SwiGLU(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, lines: Lines, past: Past) -> Tensor:  # [B, T, D]
        x = x + self.attn_out_norm(lines.attend(self.attn, self.attn_norm(x), past))
        return x + self.ffn_out_norm(self.ffn(self.ffn_norm(x)))  # type: ignore[no-any-return]


class Ouro(LoopedModel):
    """Ouro. The loop's state is the hidden state, which begins as the embedding."""

    family: ClassVar[str] = "ouro"

    def __init__(self, config: OuroConfig) -> None:
        super().__init__()
        self.config, self.slots = config, config.num_hidden_layers
        self.embed = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        D = config.hidden_size
        self.gate = Quantile(D, config.threshold) if config.exit == "quantile" else Expectation(D)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    @classmethod
    def sources(cls, config: OuroConfig, state: Mapping[str, Tensor]) -> Sources:
        return to_model(config, state)

    def reference_state(self) -> dict[str, Tensor]:
        return from_model(self.config, plain_state(self))

    @property
    def exit(self) -> Exit:
        return self.gate

    @property
    def sizes(self) -> Sizes:
        c = self.config
        line = 2 * c.num_key_value_heads * c.head_dim
        longest = c.max_position_embeddings
        return Sizes(c.vocab_size, c.hidden_size, line, longest, longest, c.loops)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        c = self.config
        rotary = Rotary.at(positions, c.head_dim, c.rope_theta, accumulation_dtype(self.dtype))
        return Past(positions, past_lengths, rotary)

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        return self.embed(ids)  # type: ignore[no-any-return]

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        for layer in self.layers:
            h = layer(h, lines, context.past)
        return self.norm(h).to(context.encoded.dtype)  # type: ignore[no-any-return]

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        return answer.to(self.dtype)

    def readout(self, x: Tensor) -> Tensor:
        return self.head(x)  # type: ignore[no-any-return]

    @classmethod
    def keeps(cls, name: str) -> bool:
        """The exit gate: one row, and what it decides is compared exactly."""
        return name.startswith("gate")
