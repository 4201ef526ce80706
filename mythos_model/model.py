"""The whole model: embedding, prelude, the looped block, coda, tied head.

>>> model = MythosModel(MythosConfig.variant("1b"))
>>> out = model(input_ids, max_loops=8)      # input_ids int64 [B, T]
>>> out.logits, out.depth, out.loops         # [B, T, V], int32 [B, T], int64 []
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mythos_model import stacking
from mythos_model.attention import Past, make_attention
from mythos_model.config import MythosConfig
from mythos_model.layers import RMSNorm, Rotary, SwiGLU, TiedEmbedding
from mythos_model.loop import Carry, Observer, RecurrentBlock, run_python, run_while_loop
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import plain_state


class Output(NamedTuple):
    """What one call computes; the order is the order of the exported graph's outputs.

    Attributes:
        logits: [B, T, V], float32 (float64 in a float64 model).
        depth: int32 [B, T], loops that contributed to a position; 0 for padding.
        loops: int64 [], iterations run.
        new_layers: [L, B, T, C], cache entries of prelude and coda, in that order.
        new_loop: [N, B, T, C], cache entries per loop depth. Depths that did not run repeat the deepest that did.
    """

    logits: Tensor
    depth: Tensor
    loops: Tensor
    new_layers: Tensor
    new_loop: Tensor


class DenseBlock(nn.Module):
    """Pre-norm transformer block of prelude and coda."""

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.dim)
        self.attn = make_attention(config)
        self.ffn_norm = RMSNorm(config.dim)
        self.ffn = SwiGLU(config.dim, config.dense_ffn_dim)

    def forward(self, x: Tensor, past: Past, stored: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
        y, chunk = self.attn(self.attn_norm(x), past, stored, layer)
        x = x + y
        return x + self.ffn(self.ffn_norm(x)), chunk


class MythosModel(nn.Module):
    """OpenMythos. Parameters carry the reference's names, but for the experts, which are stacked."""

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = TiedEmbedding(config.vocab_size, config.dim)
        self.prelude = nn.ModuleList(DenseBlock(config) for _ in range(config.prelude_layers))
        self.recurrent = RecurrentBlock(config)
        self.coda = nn.ModuleList(DenseBlock(config) for _ in range(config.coda_layers))
        self.norm = RMSNorm(config.dim)

    @classmethod
    def from_state(
        cls, config: MythosConfig, state: Mapping[str, Tensor], dtype: torch.dtype | None = None
    ) -> MythosModel:
        """A model in evaluation mode from a reference-named state dict (`load_checkpoint(...).state`).

        `dtype` casts the weights; without it they keep theirs, mixed ones becoming the widest among them.
        """
        if dtype is None:
            dtype = torch.float16
            for tensor in state.values():
                dtype = tensor.dtype if dtype is torch.float16 else torch.promote_types(dtype, tensor.dtype)
        with torch.device("meta"):
            model = cls(config)
        stacked = {name: tensor.to(dtype) for name, tensor in stacking.stack_experts(config, state).items()}
        model.load_state_dict(stacked, assign=True)
        return model.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and caches."""
        return self.norm.weight.dtype

    def reference_state(self) -> dict[str, Tensor]:
        """The weights under the reference's names, one tensor per expert (`save_checkpoint` takes this).

        Those of a quantised model (`mythos_model.quantized`) are the float32 values that they stand for.
        """
        return stacking.unstack_experts(self.config, plain_state(self))

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

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        past_lengths: Tensor | None = None,
        max_loops: Tensor | int | None = None,
        halt_threshold: Tensor | float | None = None,
        early_exit: Tensor | bool = True,
        past_layers: Tensor | None = None,
        past_loop: Tensor | None = None,
        *,
        observe: Observer | None = None,
        use_while_loop: bool = False,
    ) -> Output:
        """Run the model on new tokens, with or without a cache.

        Args:
            input_ids: int64 [B, T].
            positions: int64 [B, T], absolute, -1 for padding; by default the tokens follow `past_lengths`.
            past_lengths: int64 [B], valid entries of the past; default 0.
            max_loops: int64 [], the most iterations; default the trained number. 0 runs none.
            halt_threshold: float32 [], default the configuration's.
            early_exit: bool [], leave the loop once every position has halted. Exact without a cache; with one, later
                tokens find the deepest computed entry in place of the deeper ones.
            past_layers: [L, B, S, C]; past_loop: [N, B, S, C] with N >= max_loops.
            observe: called with (carry, details) after every iteration; not with `use_while_loop`.
            use_while_loop: drive the loop by torch's `while_loop` operator, as torch.export needs it.
        """
        config, device = self.config, input_ids.device
        B, T = input_ids.shape
        if past_lengths is None:
            past_lengths = torch.zeros(B, dtype=torch.int64, device=device)
        if positions is None:
            positions = past_lengths.unsqueeze(1) + torch.arange(T, device=device)
        max_loops = torch.as_tensor(config.max_loop_iters if max_loops is None else max_loops, device=device)
        threshold = config.act_threshold if halt_threshold is None else halt_threshold
        threshold = torch.as_tensor(threshold, dtype=torch.float32, device=device)
        if past_layers is None or past_loop is None:
            past_layers, past_loop = self.empty_past(B, int(max_loops))

        wide = accumulation_dtype(self.dtype)
        rotary = Rotary.at(positions, config.rope_dim, config.rope_theta, wide)
        past = Past(positions, past_lengths, rotary)
        chunks: list[Tensor] = []

        x = self.embed(input_ids)
        for block in self.prelude:
            x = self._dense(block, x, past, past_layers, chunks)

        depths = torch.full((), past_loop.shape[0], dtype=torch.int64, device=device)
        limit = torch.minimum(max_loops, depths)
        leave = torch.as_tensor(early_exit, device=device)
        context = self.recurrent.context(x, past, past_loop, limit, threshold, leave)
        carry = (
            run_while_loop(self.recurrent, context) if use_while_loop else run_python(self.recurrent, context, observe)
        )

        x = carry.out.to(x.dtype)
        for block in self.coda:
            x = self._dense(block, x, past, past_layers, chunks)
        logits = self.embed.logits(self.norm(x)).to(wide)
        new_layers = torch.stack(chunks) if chunks else past_layers.new_zeros(0, B, T, config.cache_dim)
        return Output(logits, carry.depth, carry.iteration, new_layers, _fill_depths(carry))

    def _dense(self, block: nn.Module, x: Tensor, past: Past, stored: Tensor, chunks: list[Tensor]) -> Tensor:
        layer = torch.full((), len(chunks), dtype=torch.int64, device=x.device)
        x, chunk = block(x, past, stored, layer)
        chunks.append(chunk)
        return x

    def empty_past(self, batch: int, max_loops: int) -> tuple[Tensor, Tensor]:
        """Caches that hold nothing: past_layers [L, B, 0, C] and past_loop [max(max_loops, 1), B, 0, C]."""
        layers = len(self.prelude) + len(self.coda)
        make = self.norm.weight.new_zeros
        C = self.config.cache_dim
        return make(layers, batch, 0, C), make(max(max_loops, 1), batch, 0, C)


def _fill_depths(carry: Carry) -> Tensor:
    """new_loop with the depths that did not run filled by the deepest that did (the `last` cache policy)."""
    depths = torch.arange(carry.new_loop.shape[0], device=carry.new_loop.device)
    deepest = (carry.iteration - 1).clamp(min=0)
    return carry.new_loop.index_select(0, torch.minimum(depths, deepest))
