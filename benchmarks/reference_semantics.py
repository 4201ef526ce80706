"""The baseline of benchmarks: the model in eager PyTorch, written the way the public reference writes it.

Modules of `nn.Linear`; a mixture of experts as a Python loop over slots and experts with masks; attention with keys and
values made per head for the whole past at every step; a cache that grows by concatenation, the rotary key repeated per
head; every loop depth with its own entry. Measured against the public reference itself (open-mythos 0.5.0, MLA, the
benchmark's sizes): logits equal bit for bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mythos_model import MythosConfig

Cache = dict[str, dict[str, Tensor]]


class RMSNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def rotate(x: Tensor, frequencies: Tensor) -> Tensor:
    """x [B, T, heads, P], complex frequencies [T, P/2]: adjacent pairs are turned."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * frequencies[None, :, None]).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c: MythosConfig) -> None:
        super().__init__()
        self.c, H, linear = c, c.n_heads, nn.Linear
        self.q_down, self.q_norm = linear(c.dim, c.q_lora_rank, bias=False), RMSNorm(c.q_lora_rank)
        self.q_up_nope = linear(c.q_lora_rank, H * c.qk_nope_head_dim, bias=False)
        self.q_up_rope = linear(c.q_lora_rank, H * c.qk_rope_head_dim, bias=False)
        self.kv_down = linear(c.dim, c.kv_lora_rank + c.qk_rope_head_dim, bias=False)
        self.kv_norm = RMSNorm(c.kv_lora_rank)
        self.kv_up = linear(c.kv_lora_rank, H * (c.qk_nope_head_dim + c.v_head_dim), bias=False)
        self.wo = linear(H * c.v_head_dim, c.dim, bias=False)

    def forward(self, x: Tensor, frequencies: Tensor, mask: Tensor | None, cache: Cache | None, key: str) -> Tensor:
        c, (B, T, _) = self.c, x.shape
        H, nope, P, v_dim, R = c.n_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank
        c_q = self.q_norm(self.q_down(x))
        q_nope = self.q_up_nope(c_q).view(B, T, H, nope)
        q = torch.cat([q_nope, rotate(self.q_up_rope(c_q).view(B, T, H, P), frequencies)], -1)
        c_kv, k_rope = self.kv_down(x).split([R, P], -1)
        k_rope = rotate(k_rope.unsqueeze(2).expand(B, T, H, P).contiguous(), frequencies)
        if cache is not None:
            if key in cache:
                c_kv = torch.cat([cache[key]["c_kv"], c_kv], 1)
                k_rope = torch.cat([cache[key]["k_rope"], k_rope], 1)
            cache[key] = {"c_kv": c_kv.detach(), "k_rope": k_rope.detach()}
        S = c_kv.shape[1]
        k_nope, v = self.kv_up(self.kv_norm(c_kv)).view(B, S, H, nope + v_dim).split([nope, v_dim], -1)
        k = torch.cat([k_nope, k_rope], -1)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        scores = torch.matmul(q, k.transpose(-2, -1)) * (nope + P) ** -0.5
        if mask is not None:
            scores = scores + mask
        rows = torch.matmul(F.softmax(scores, -1), v)
        return self.wo(rows.transpose(1, 2).contiguous().view(B, T, -1))  # type: ignore[no-any-return]


class Expert(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, width, bias=False), nn.Linear(dim, width, bias=False)
        self.down = nn.Linear(width, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class MixtureOfExperts(nn.Module):
    def __init__(self, c: MythosConfig) -> None:
        super().__init__()
        self.experts, self.chosen = c.n_experts, c.n_experts_per_tok
        self.router = nn.Linear(c.dim, c.n_experts, bias=False)
        self.router_bias = nn.Parameter(torch.zeros(c.n_experts))
        self.routed_experts = nn.ModuleList(Expert(c.dim, c.expert_dim) for _ in range(c.n_experts))
        shared = c.expert_dim * c.n_experts_per_tok
        self.shared_experts = nn.ModuleList(Expert(c.dim, shared) for _ in range(c.n_shared_experts))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.view(-1, x.shape[-1])
        logits = self.router(flat)
        scores = F.softmax(logits, -1)
        index = (logits + self.router_bias).topk(self.chosen, -1).indices
        weight = scores.gather(-1, index)
        weight = weight / weight.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for slot in range(self.chosen):
            ids, factor = index[:, slot], weight[:, slot].unsqueeze(-1)
            for expert in range(self.experts):
                mask = ids == expert
                if not mask.any():
                    continue
                out[mask] += factor[mask] * self.routed_experts[expert](flat[mask])
        for shared in self.shared_experts:
            out = out + shared(flat)
        return out.view_as(x)


class Block(nn.Module):
    def __init__(self, c: MythosConfig, moe: bool) -> None:
        super().__init__()
        self.attn_norm, self.ffn_norm = RMSNorm(c.dim), RMSNorm(c.dim)
        self.attn = Attention(c)
        self.ffn = MixtureOfExperts(c) if moe else Expert(c.dim, c.dense_ffn_dim)

    def forward(self, x: Tensor, frequencies: Tensor, mask: Tensor | None, cache: Cache | None, key: str) -> Tensor:
        x = x + self.attn(self.attn_norm(x), frequencies, mask, cache, key)
        return x + self.ffn(self.ffn_norm(x))  # type: ignore[no-any-return]


class Injection(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_A, self.log_dt = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(1))
        self.B = nn.Parameter(torch.zeros(dim))

    def forward(self, h: Tensor, e: Tensor, y: Tensor) -> Tensor:
        decay = torch.exp(-torch.exp((self.log_dt + self.log_A).clamp(-20, 20)))
        return decay * h + self.B * e + y


class LoRA(nn.Module):
    def __init__(self, c: MythosConfig) -> None:
        super().__init__()
        self.loops = c.max_loop_iters
        self.down = nn.Linear(c.dim, c.lora_rank, bias=False)
        self.B = nn.Parameter(torch.zeros(c.lora_rank, c.dim))
        self.scale = nn.Embedding(c.max_loop_iters, c.lora_rank)

    def forward(self, y: Tensor, t: int) -> Tensor:
        scale = self.scale(torch.tensor(min(t, self.loops - 1)))
        return (self.down(y) * scale) @ self.B  # type: ignore[no-any-return]


class Halting(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.halt = nn.Linear(dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        return torch.sigmoid(self.halt(h)).squeeze(-1)


class Recurrent(nn.Module):
    def __init__(self, c: MythosConfig) -> None:
        super().__init__()
        self.c = c
        self.block, self.norm = Block(c, moe=True), RMSNorm(c.dim)
        self.injection, self.lora, self.act = Injection(c.dim), LoRA(c), Halting(c.dim)

    def loop_index(self, h: Tensor, t: int) -> Tensor:
        L = self.c.dim // 8
        frequency = 1.0 / 10000 ** (torch.arange(0, L, 2).float() / L)
        code = torch.cat([(t * frequency).sin(), (t * frequency).cos()])[:L]
        full = torch.zeros(h.shape[-1])
        full[:L] = code
        return h + full

    def forward(
        self,
        h: Tensor,
        e: Tensor,
        frequencies: Tensor,
        mask: Tensor | None,
        loops: int,
        threshold: float,
        cache: Cache | None,
    ) -> Tensor:
        halted = torch.zeros(h.shape[:2], dtype=torch.bool)
        cumulative, out = torch.zeros(h.shape[:2]), torch.zeros_like(h)
        for t in range(loops):
            u = self.norm(self.loop_index(h, t) + e)
            y = self.block(u, frequencies, mask, cache, f"loop_{t}")
            h = self.injection(h, e, y + self.lora(y, t))
            p = self.act(h)
            running = ~halted
            remainder = (1 - cumulative).clamp(min=0)
            weight = torch.where(cumulative + p >= threshold, remainder, p) * running.float()
            out = out + weight.unsqueeze(-1) * h
            cumulative = cumulative + p * running.float()
            halted = halted | (cumulative >= threshold)
            if cache is None and halted.all():
                break
        return out


class ReferenceSemantics(nn.Module):
    """MLA models. `state` has the reference's parameter names (`MythosModel.reference_state`)."""

    def __init__(self, c: MythosConfig, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.embed = nn.Embedding(c.vocab_size, c.dim)
        self.prelude = nn.ModuleList(Block(c, moe=False) for _ in range(c.prelude_layers))
        self.recurrent = Recurrent(c)
        self.coda = nn.ModuleList(Block(c, moe=False) for _ in range(c.coda_layers))
        self.norm = RMSNorm(c.dim)
        self.load_state_dict({name: value for name, value in state.items() if name != "head.weight"})
        self.eval()
        P = c.qk_rope_head_dim
        angles = torch.outer(torch.arange(c.max_seq_len).float(), 1.0 / c.rope_theta ** (torch.arange(0, P, 2) / P))
        self.frequencies = torch.polar(torch.ones_like(angles), angles)

    @torch.no_grad()
    def forward(self, ids: Tensor, loops: int, threshold: float, cache: Cache | None = None, start: int = 0) -> Tensor:
        """ids [B, T] at positions start.. -> logits [B, T, V]; `cache` is read and appended to."""
        T = ids.shape[1]
        frequencies = self.frequencies[start : start + T]
        mask = torch.full((1, 1, T, T), float("-inf")).triu(1) if T > 1 else None
        x = self.embed(ids)
        for i, block in enumerate(self.prelude):
            x = block(x, frequencies, mask, cache, f"prelude_{i}")
        x = self.recurrent(x, x, frequencies, mask, loops, threshold, cache)
        for i, block in enumerate(self.coda):
            x = block(x, frequencies, mask, cache, f"coda_{i}")
        return F.linear(self.norm(x), self.embed.weight)
