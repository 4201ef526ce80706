"""Parcae ("Stable looped language models", arXiv:2604.12946): prelude, core layers looped from a random state with the
prompt fed into every loop, coda. card.md says it exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model.attention import GroupedQueryAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, shape_logits
from mythos_model.exits import Exit, Fixed
from mythos_model.families.parcae.config import CUT, ParcaeConfig
from mythos_model.families.parcae.names import GATED, from_model, to_model
from mythos_model.looped import LoopedModel
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state
from mythos_model.state import Check, Context, Lines, Sizes
from mythos_model.weights import Sources
from mythos_runtime.spec import StateTensor

QK_EPS = torch.finfo(torch.float32).eps  # whatever the precision
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU2": lambda x: 0.5 * F.relu(x).square(),
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
}


class FeedForward(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x)."""

    def __init__(self, c: ParcaeConfig) -> None:
        super().__init__()
        self.act = ACTIVATIONS[c.nonlin_name]
        gated = c.mlp_class_name == "GatedMLP"
        self.gate = nn.Linear(c.n_embd, c.intermediate_size, bias=False) if gated else None
        self.up = nn.Linear(c.n_embd, c.intermediate_size, bias=False)
        self.down = nn.Linear(c.intermediate_size, c.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [..., D]
        inner = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        return self.down(inner)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm. Where the layer has a table of value embeddings, its values depend on the token by itself, too."""

    def __init__(self, c: ParcaeConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.head_dim = c.num_key_value_heads, c.head_dim
        self.attn_norm, self.ffn_norm = RMSNorm(c.n_embd, c.norm_eps), RMSNorm(c.n_embd, c.norm_eps)
        norm = QK_EPS if c.qk_norm else None
        self.attn = GroupedQueryAttention(
            c.n_embd, c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.qk_bias, norm
        )
        self.value_gate = nn.Linear(GATED, self.heads, bias=False) if layer in c.valued else None
        self.ffn = FeedForward(c)

    def forward(self, x: Tensor, lines: Lines, past: Past) -> Tensor:  # [B, T, D]
        u = self.attn_norm(x)
        added = () if self.value_gate is None else (self._values(u, past.tokens[self.layer]),)
        x = x + lines.attend(self.attn, u, past, *added)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]

    def _values(self, u: Tensor, looked_up: Tensor) -> Tensor:
        """What is added to the values: u [..., D], the table's lines [..., G * hd] -> [..., G * hd]."""
        assert self.value_gate is not None
        share = 2 * torch.sigmoid(self.value_gate(u[..., :GATED]))  # [..., G]
        looked: Tensor = looked_up.unflatten(-1, (self.heads, self.head_dim))
        return (share.unsqueeze(-1) * looked).flatten(-2)


class Diagonal(nn.Module):
    """What a loop begins with: A x + dt (e B^T), with dt = softplus(dt_bias) and A = exp(-dt exp(A_log)).

    e does not change, so its part of it is computed once: `fed`, which stands before the loop in place of e.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.A_log, self.dt_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.B = nn.Linear(dim, dim, bias=False)

    def step(self, dtype: torch.dtype) -> Tensor:  # [D]
        return F.softplus(self.dt_bias.to(dtype))

    def decay(self, dtype: torch.dtype) -> Tensor:  # [D]
        return torch.exp(-self.step(dtype) * torch.exp(self.A_log.to(dtype)))

    def fed(self, e: Tensor) -> Tensor:
        wide = accumulation_dtype(e.dtype)
        return self.step(wide) * self.B(e).to(wide)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, fed: Tensor, decay: Tensor) -> Tensor:
        return decay * x + fed


class Concatenated(nn.Module):
    """The other two injections: adapter([x ; e]), or without an adapter x + e."""

    def __init__(self, dim: int, linear: bool) -> None:
        super().__init__()
        self.adapter = nn.Linear(2 * dim, dim, bias=False) if linear else None

    def fed(self, e: Tensor) -> Tensor:
        return e

    def forward(self, x: Tensor, fed: Tensor, decay: None) -> Tensor:
        if self.adapter is None:
            return x + fed
        return self.adapter(torch.cat([x, fed], -1).to(self.adapter.weight.dtype))  # type: ignore[no-any-return]


class Parcae(LoopedModel):
    """Parcae. Nothing depends on the number of a loop but its cache; the depth is the caller's."""

    family: ClassVar[str] = "parcae"
    reads_tokens = True

    def __init__(self, config: ParcaeConfig) -> None:
        super().__init__()
        c = self.config = config
        self.before, self.after, self.slots = c.n_layers_in_prelude, c.n_layers_in_coda, c.n_layers_in_recurrent_block
        self.reads_tokens = any(layer >= self.before for layer in c.valued)
        self.embed = Embedding(c.padded_vocab_size, c.n_embd)
        line = c.num_key_value_heads * c.head_dim
        self.values = nn.ModuleDict({str(layer): Embedding(c.padded_vocab_size, line) for layer in c.valued})
        layers = [Block(c, layer) for layer in range(c.layers)]
        self.prelude = nn.ModuleList(layers[: self.before])
        self.core = nn.ModuleList(layers[self.before : self.before + self.slots])
        self.coda = nn.ModuleList(layers[self.before + self.slots :])
        self.prelude_norm = RMSNorm(c.n_embd, c.norm_eps) if c.prelude_norm else None
        diagonal = c.injection_type == "diagonal"
        self.injection = Diagonal(c.n_embd) if diagonal else Concatenated(c.n_embd, c.injection_type == "linear")
        self.out = nn.Linear(c.n_embd, c.n_embd, bias=False)
        self.norm = RMSNorm(c.n_embd, c.norm_eps)
        self.head = None if c.tie_embeddings else nn.Linear(c.n_embd, c.padded_vocab_size, bias=False)
        self.rule = Fixed()

    @classmethod
    def sources(cls, config: ParcaeConfig, state: Mapping[str, Tensor]) -> Sources:
        return to_model(config, state)

    def reference_state(self) -> dict[str, Tensor]:
        return from_model(self.config, plain_state(self))

    @property
    def exit(self) -> Exit:
        return self.rule

    @property
    def initial(self) -> StateTensor:
        c = self.config
        cut = CUT if c.state_init == "like-init" else None
        return StateTensor("h", "float32", ("B", "T", c.n_embd), "noise", c.state_scale, cut)

    @property
    def sizes(self) -> Sizes:
        c = self.config
        line = 2 * c.num_key_value_heads * c.head_dim
        return Sizes(c.padded_vocab_size, c.n_embd, line, c.block_size, c.block_size, c.mean_recurrence)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        c = self.config
        rotary = Rotary.at(positions, c.head_dim, c.rope_base, accumulation_dtype(self.dtype))
        return Past(positions, past_lengths, rotary)

    def per_token(self, ids: Tensor) -> dict[int, Tensor]:
        """The lines of the tables of value embeddings, [B, T, G * hd], by layer."""
        return {int(layer): table(ids) for layer, table in self.values.items()}

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        x = self.embed(ids) * self.config.embed_scale
        for block in self.prelude:
            x = block(x, lines, past)
        if self.prelude_norm is not None:
            x = self.prelude_norm(x)
        return self.injection.fed(x)

    def prepare(self, encoded: Tensor, depths: Tensor) -> Any:
        return self.injection.decay(encoded.dtype) if isinstance(self.injection, Diagonal) else None

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        x = self.injection(h, context.encoded, context.own)
        for block in self.core:
            x = block(x, lines, context.past)
        return x.to(h.dtype)  # type: ignore[no-any-return]

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        x = self.out(answer.to(self.dtype))
        for block in self.coda:
            x = block(x, lines, past)
        return x  # type: ignore[no-any-return]

    def readout(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        logits = self.embed.logits(x) if self.head is None else self.head(x)
        return shape_logits(
            logits.to(accumulation_dtype(self.dtype)), self.config.logit_scale, self.config.logit_softcap
        )

    def checks(self) -> tuple[Check, ...]:
        if not isinstance(self.injection, Diagonal):
            return ()
        radius = float(self.injection.decay(torch.float32).max())
        return (Check("largest decay", radius, 1.0, "the state would not forget, and the loop diverge"),)

    @classmethod
    def keeps(cls, name: str) -> bool:
        """The gates of value embeddings, which are tiny, and B, whose result every loop adds again."""
        return name.endswith(("value_gate", "injection.B"))
