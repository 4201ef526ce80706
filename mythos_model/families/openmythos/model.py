"""OpenMythos: embedding, prelude, the looped block, coda, tied head. The exact semantics: card.md.

>>> model = MythosModel(MythosConfig.variant("1b"))
>>> out = model(input_ids, max_loops=8)      # input_ids int64 [B, T]
>>> out.logits, out.depth, out.loops         # [B, T, V], int32 [B, T], int64 []
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model.attention import GroupedQueryAttention, LatentAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, SwiGLU
from mythos_model.exits import Act
from mythos_model.families.openmythos.config import MythosConfig
from mythos_model.families.openmythos.names import stack_experts, unstack_experts
from mythos_model.looped import LoopedModel
from mythos_model.moe import MixtureOfExperts
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state
from mythos_model.state import Check, Context, Lines, Sizes
from mythos_model.weights import Sources
from mythos_runtime.spec import TraceTensor


class Block(nn.Module):
    """Pre-norm transformer block: dense in prelude and coda, with the mixture of experts in the loop."""

    def __init__(self, config: MythosConfig, ffn: nn.Module) -> None:
        super().__init__()
        self.attn_norm, self.attn = RMSNorm(config.dim), _attention(config)
        self.ffn_norm, self.ffn = RMSNorm(config.dim), ffn

    def forward(self, x: Tensor, lines: Lines, past: Past) -> Tensor:  # [B, T, D]
        x = x + lines.attend(self.attn, self.attn_norm(x), past)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]


class LoopLoRA(nn.Module):
    """Low-rank update whose inner scale depends on the loop index: y + ((y down^T) * scale[t]) B."""

    def __init__(self, dim: int, rank: int, loops: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank, bias=False)
        self.B = nn.Parameter(torch.zeros(rank, dim))
        self.scale = nn.Embedding(loops, rank)

    def scales(self, iterations: Tensor) -> Tensor:  # int64 [N] -> [N, rank]
        most = self.scale.num_embeddings - 1  # beyond training, the last row serves
        return self.scale(iterations.clamp(max=most))  # type: ignore[no-any-return]

    def forward(self, y: Tensor, scale: Tensor) -> Tensor:  # [B, T, D], [rank] -> [B, T, D]
        return y + torch.matmul(self.down(y) * scale, self.B)


class Injection(nn.Module):
    """Linear time-invariant injection, h' = A h + B e + y with a diagonal A in (0, 1): stable by construction."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_A = nn.Parameter(torch.zeros(dim))
        self.log_dt = nn.Parameter(torch.zeros(1))
        self.B = nn.Parameter(torch.full((dim,), 0.1))

    def decay(self, dtype: torch.dtype) -> Tensor:
        """A, [D]: the per-channel factor on the state. Its largest entry is the spectral radius."""
        return torch.exp(-torch.exp((self.log_dt.to(dtype) + self.log_A.to(dtype)).clamp(-20, 20)))

    def inject(self, encoded: Tensor) -> Tensor:
        """B e, the same in every iteration."""
        return self.B.to(encoded.dtype) * encoded

    def forward(self, h: Tensor, injected: Tensor, y: Tensor) -> Tensor:
        return self.decay(h.dtype) * h + injected + y.to(h.dtype)


class Prepared(NamedTuple):
    """injected [B, T, D]: B e; codes [N, D]: the loop embedding of every depth; lora_scales [N, rank]."""

    injected: Tensor
    codes: Tensor
    lora_scales: Tensor


class RecurrentBlock(nn.Module):
    """The one block that is looped, with its loop embedding, LoRA, injection and halting."""

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.dim, self.embedding_dim = config.dim, config.loop_embedding_dim
        self.norm = RMSNorm(config.dim)
        self.block = Block(config, _experts(config))
        self.lora = LoopLoRA(config.dim, config.lora_rank, config.max_loop_iters)
        self.injection = Injection(config.dim)
        self.act = Act(config.dim, config.act_threshold)

    def loop_embedding(self, iterations: Tensor, dtype: torch.dtype) -> Tensor:
        """Sinusoidal codes of loop indices on the first D // 8 channels, zeros behind: int64 [N] -> [N, D]."""
        width = self.embedding_dim
        exponent = torch.arange(0, width, 2, dtype=dtype, device=iterations.device) / max(width, 1)
        angle = iterations.to(dtype).unsqueeze(1) * 10000.0**-exponent
        code = torch.cat([torch.sin(angle), torch.cos(angle)], 1)[:, :width]
        return torch.cat([code, code.new_zeros(iterations.shape[0], self.dim - width)], 1)

    def prepare(self, encoded: Tensor, depths: Tensor) -> Prepared:
        codes = self.loop_embedding(depths, encoded.dtype)
        return Prepared(self.injection.inject(encoded), codes, self.lora.scales(depths))

    def forward(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        """The next state, before anything is said of halting: h [B, T, D] -> [B, T, D]."""
        own: Prepared = context.own
        u = self.norm(h + F.embedding(iteration, own.codes) + context.encoded)
        y = self.lora(self.block(u, lines, context.past), F.embedding(iteration, own.lora_scales))
        return self.injection(h, own.injected, y)  # type: ignore[no-any-return]


class MythosModel(LoopedModel):
    """OpenMythos. Parameters carry the reference's names, but for the experts, which are stacked."""

    family: ClassVar[str] = "openmythos"

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.config = config
        self.before, self.after = config.prelude_layers, config.coda_layers
        self.embed = Embedding(config.vocab_size, config.dim)
        self.prelude = nn.ModuleList(Block(config, _dense(config)) for _ in range(config.prelude_layers))
        self.recurrent = RecurrentBlock(config)
        self.coda = nn.ModuleList(Block(config, _dense(config)) for _ in range(config.coda_layers))
        self.norm = RMSNorm(config.dim)

    @classmethod
    def sources(cls, config: MythosConfig, state: Mapping[str, Tensor]) -> Sources:
        return stack_experts(config, state)

    def reference_state(self) -> dict[str, Tensor]:
        return unstack_experts(self.config, plain_state(self))

    @property
    def exit(self) -> Act:
        return self.recurrent.act

    @property
    def experts(self) -> MixtureOfExperts:
        """The looped block's."""
        return cast(MixtureOfExperts, self.recurrent.block.ffn)

    @property
    def sizes(self) -> Sizes:
        c = self.config
        return Sizes(c.vocab_size, c.dim, c.cache_dim, c.max_seq_len, c.max_output_tokens, c.max_loop_iters)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        dtype = accumulation_dtype(self.dtype)
        return Past(positions, past_lengths, Rotary.at(positions, self.config.rope_dim, self.config.rope_theta, dtype))

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        x = self.embed(ids)
        for block in self.prelude:
            x = block(x, lines, past)
        return x  # type: ignore[no-any-return]

    def prepare(self, encoded: Tensor, depths: Tensor) -> Prepared:
        return self.recurrent.prepare(encoded, depths)

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        return self.recurrent(h, iteration, lines, context)  # type: ignore[no-any-return]

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        x = answer.to(self.dtype)
        for block in self.coda:
            x = block(x, lines, past)
        return x

    def readout(self, x: Tensor) -> Tensor:
        return self.embed.logits(self.norm(x))

    def checks(self) -> tuple[Check, ...]:
        radius = float(self.recurrent.injection.decay(torch.float32).max())  # in the dtype that the loop computes it in
        return (Check("spectral radius", radius, 1.0, "the state would not forget, and the loop diverge"),)

    def inner_trace(self) -> tuple[TraceTensor, ...]:
        return self.experts.trace()

    @classmethod
    def keeps(cls, name: str) -> bool:
        """The router (a near tie changes an expert), halting and LoRA, which are small, and MLA's kv_up, which
        attention folds into queries and outputs."""
        return any(part in name for part in ("router", "halt", "lora", "kv_up"))

    @torch.no_grad()
    def reset_parameters(self, seed: int = 0, halt_bias: float = -1.0) -> MythosModel:
        """Random weights: matrices N(0, 1/fan_in), norms and scales near 1. Returns self."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if name.endswith(("norm.weight", "lora.scale.weight")):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("halt.bias"):
                parameter.fill_(halt_bias)
            elif parameter.ndim < 2:
                parameter.copy_(0.1 * noise + (0.1 if name.endswith("injection.B") else 0.0))
            else:
                parameter.copy_(noise * max(parameter.shape[-1], 1) ** -0.5)
        return self


def _attention(config: MythosConfig) -> LatentAttention | GroupedQueryAttention:
    c = config
    if c.attn_type == "gqa":
        return GroupedQueryAttention(c.dim, c.n_heads, c.n_kv_heads, c.head_dim)
    widths = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    return LatentAttention(c.dim, c.n_heads, c.q_lora_rank, c.kv_lora_rank, *widths)


def _dense(config: MythosConfig) -> SwiGLU:
    return SwiGLU(config.dim, config.dense_ffn_dim)


def _experts(config: MythosConfig) -> MixtureOfExperts:
    c = config
    return MixtureOfExperts(c.dim, c.n_experts, c.n_experts_per_tok, c.expert_dim, c.shared_ffn_dim)
