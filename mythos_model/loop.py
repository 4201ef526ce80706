"""The recurrent block and its loop: one `step`, driven by a Python loop or by torch's `while_loop`.

`Carry`'s field order is the order of the exported loop's state. The counter is a tensor and an output, so that a
runtime that runs one iteration too many is caught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from mythos_model import ops
from mythos_model.attention import Past, make_attention
from mythos_model.config import MythosConfig
from mythos_model.layers import RMSNorm
from mythos_model.moe import MixtureOfExperts, Routing
from mythos_model.ops import accumulation_dtype


class Carry(NamedTuple):
    """What one iteration hands to the next. State is float32 (float64 in a float64 model) at every precision.

    Attributes:
        iteration: int64 [], iterations run so far.
        h: [B, T, D], the recurrent state.
        out: [B, T, D], the halting-weighted sum of states.
        cumulative: [B, T], summed halting probability.
        halted: bool [B, T].
        depth: int32 [B, T], iterations that contributed to a position.
        running: bool [], whether any position has not halted.
        new_loop: [N, B, T, C], the chunk's cache entries of every depth.
    """

    iteration: Tensor
    h: Tensor
    out: Tensor
    cumulative: Tensor
    halted: Tensor
    depth: Tensor
    running: Tensor
    new_loop: Tensor


class Context(NamedTuple):
    """What stays the same over the iterations.

    Attributes:
        encoded: [B, T, D], the prelude's output, in the state's dtype.
        injected: [B, T, D], what every iteration injects of it.
        codes: [N, D], the loop embedding of every depth.
        lora_scales: [N, rank], the LoRA's inner scale at every depth.
        past: positions and lengths.
        past_loop: [N, B, S, C], the cache of every depth.
        limit: int64 [], the most iterations to run.
        halt_threshold: [], cumulative probability at which a position halts.
        every_loop: bool [], run up to the limit, whoever has halted.
    """

    encoded: Tensor
    injected: Tensor
    codes: Tensor
    lora_scales: Tensor
    past: Past
    past_loop: Tensor
    limit: Tensor
    halt_threshold: Tensor
    every_loop: Tensor


class Details(NamedTuple):
    """What happened inside one iteration, for whoever looks inside the loop.

    Attributes:
        probability: [B, T], the halting probability of this iteration.
        routing: the experts chosen.
        chunk: [B, T, C], the cache entries of this depth.
    """

    probability: Tensor
    routing: Routing
    chunk: Tensor


Observer = Callable[[Carry, Details], None]


class LoopLoRA(nn.Module):
    """Low-rank update whose inner scale depends on the loop index: y + ((y down^T) * scale[t]) B."""

    def __init__(self, dim: int, rank: int, loops: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, rank, bias=False)
        self.B = nn.Parameter(torch.zeros(rank, dim))
        self.scale = nn.Embedding(loops, rank)

    def scales(self, iterations: Tensor) -> Tensor:  # int64 [N] -> [N, rank]
        return self.scale(iterations.clamp(max=self.scale.num_embeddings - 1))  # beyond training, the last row serves

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


class Halting(nn.Module):
    """Per-token halting probability, sigmoid(w h + b), as in Adaptive Computation Time (arXiv:1603.08983)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.halt = nn.Linear(dim, 1)

    def logit(self, h: Tensor) -> Tensor:  # [..., D] -> [...]
        return ops.halting_logit(h, self.halt.weight.to(h.dtype), self.halt.bias.to(h.dtype))

    def forward(
        self, h: Tensor, out: Tensor, cumulative: Tensor, halted: Tensor, depth: Tensor, threshold: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the new state h adds to the sum, and who halts with it; see `mythos_model.ops.act_halting`."""
        act = torch.ops.mythos.act_halting if torch.compiler.is_exporting() else ops.act_halting
        weight, bias = self.halt.weight.to(h.dtype), self.halt.bias.to(h.dtype)
        return act(h, out, cumulative, halted, depth, weight, bias, threshold)  # type: ignore[no-any-return]


class RecurrentBlockLayer(nn.Module):
    """Pre-norm transformer block whose feed-forward network is the mixture of experts."""

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.attn_norm = RMSNorm(config.dim)
        self.attn = make_attention(config)
        self.ffn_norm = RMSNorm(config.dim)
        self.ffn = MixtureOfExperts(config)

    def forward(self, x: Tensor, past: Past, stored: Tensor, layer: Tensor) -> tuple[Tensor, Tensor, Routing]:
        y, chunk = self.attn(self.attn_norm(x), past, stored, layer)
        x = x + y
        y, routing = self.ffn(self.ffn_norm(x))
        return x + y, chunk, routing


class RecurrentBlock(nn.Module):
    """The one block that is looped, with its loop embedding, LoRA, injection and halting."""

    def __init__(self, config: MythosConfig) -> None:
        super().__init__()
        self.dim, self.embedding_dim = config.dim, config.loop_embedding_dim
        self.norm = RMSNorm(config.dim)
        self.block = RecurrentBlockLayer(config)
        self.lora = LoopLoRA(config.dim, config.lora_rank, config.max_loop_iters)
        self.injection = Injection(config.dim)
        self.act = Halting(config.dim)

    def loop_embedding(self, iterations: Tensor, dtype: torch.dtype) -> Tensor:
        """Sinusoidal codes of loop indices on the first D // 8 channels, zeros behind: int64 [N] -> [N, D]."""
        width = self.embedding_dim
        exponent = torch.arange(0, width, 2, dtype=dtype, device=iterations.device) / max(width, 1)
        angle = iterations.to(dtype).unsqueeze(1) * 10000.0**-exponent
        code = torch.cat([torch.sin(angle), torch.cos(angle)], 1)[:, :width]
        return torch.cat([code, code.new_zeros(iterations.shape[0], self.dim - width)], 1)

    def context(
        self, x: Tensor, past: Past, past_loop: Tensor, limit: Tensor, halt_threshold: Tensor, early_exit: Tensor
    ) -> Context:
        """Everything that one run of the loop needs and does not change; x [B, T, D] is the prelude's output."""
        encoded = x.to(accumulation_dtype(x.dtype))
        depths = torch.arange(past_loop.shape[0], device=x.device)
        return Context(
            encoded=encoded,
            injected=self.injection.inject(encoded),
            codes=self.loop_embedding(depths, encoded.dtype),
            lora_scales=self.lora.scales(depths),
            past=past,
            past_loop=past_loop,
            limit=limit,
            halt_threshold=halt_threshold.to(encoded),
            every_loop=~early_exit,
        )

    def advance(self, h: Tensor, iteration: Tensor, context: Context) -> tuple[Tensor, Tensor, Routing]:
        """The next state, before anything is said of halting: h [B, T, D], the chunk [B, T, C], the routing."""
        h_loop = h + F.embedding(iteration, context.codes)
        u = self.norm(h_loop + context.encoded)
        y, chunk, routing = self.block(u, context.past, context.past_loop, iteration)
        y = self.lora(y, F.embedding(iteration, context.lora_scales))
        return self.injection(h, context.injected, y), chunk, routing

    def step(self, carry: Carry, context: Context) -> tuple[Carry, Details]:
        """One iteration of the loop."""
        iteration, h, out, cumulative, halted, depth, _, new_loop = carry
        h, chunk, routing = self.advance(h, iteration, context)
        p, out, cumulative, halted, depth, running = self.act(
            h, out, cumulative, halted, depth, context.halt_threshold
        )
        new_loop = new_loop.index_put((iteration,), chunk)
        carry = Carry(iteration + 1, h, out, cumulative, halted, depth, running, new_loop)
        return carry, Details(p, routing, chunk)

    def start(self, context: Context) -> Carry:
        """The state before the first iteration; padding counts as halted, so that nobody waits for it."""
        encoded = context.encoded
        B, T, D = encoded.shape
        N, _, _, C = context.past_loop.shape
        dtype, device = encoded.dtype, encoded.device
        halted = context.past.positions < 0
        return Carry(
            iteration=torch.zeros((), dtype=torch.int64, device=device),
            h=encoded.clone(),
            out=torch.zeros(B, T, D, dtype=dtype, device=device),
            cumulative=torch.zeros(B, T, dtype=dtype, device=device),
            halted=halted,
            depth=torch.zeros(B, T, dtype=torch.int32, device=device),
            running=(~halted).any(),
            new_loop=torch.zeros(N, B, T, C, dtype=context.past_loop.dtype, device=device),
        )


def goes_on(carry: Carry, context: Context) -> Tensor:
    """bool []: whether another iteration runs."""
    return (carry.iteration < context.limit) & (carry.running | context.every_loop)


def run_python(block: RecurrentBlock, context: Context, observe: Observer | None = None) -> Carry:
    """Drive the steps from Python; `observe` is shown every iteration."""
    carry = block.start(context)
    while bool(goes_on(carry, context)):
        carry, details = block.step(carry, context)
        if observe is not None:
            observe(carry, details)
    return carry


def run_while_loop(block: RecurrentBlock, context: Context) -> Carry:
    """Drive the steps by `while_loop`, the form that torch.export keeps as one control-flow node."""

    def condition(*state: Tensor) -> Tensor:
        return goes_on(Carry(*state), context)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        return tuple(block.step(Carry(*state), context)[0])

    return Carry(*while_loop(condition, body, tuple(block.start(context))))
