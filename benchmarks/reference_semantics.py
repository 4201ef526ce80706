"""The baseline of benchmarks: the model in eager PyTorch, written the way the public reference writes it.

Mixture of experts as a Python loop over slots and experts with masks; attention with keys and values made per head for
the whole past at every step; a cache that grows by concatenation, the rotary key repeated per head; every loop depth
with its own cache entry. It answers with the same logits as `mythos_model` (the benchmark checks it).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mythos_model import MythosConfig

Cache = dict[str, tuple[Tensor, Tensor]]


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight


def rotate(x: Tensor, frequencies: Tensor) -> Tensor:
    """x [B, T, heads, P], complex frequencies [T, P/2]: adjacent pairs are turned."""
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * frequencies[None, :, None]).flatten(-2).to(x.dtype)


class ReferenceSemantics:
    """MLA models. `state` has the reference's parameter names (`MythosModel.reference_state`)."""

    def __init__(self, config: MythosConfig, state: dict[str, Tensor]) -> None:
        self.config, self.w = config, state
        P = config.qk_rope_head_dim
        inverse = 1.0 / config.rope_theta ** (torch.arange(0, P, 2).float() / P)
        angles = torch.outer(torch.arange(config.max_seq_len).float(), inverse)
        self.frequencies = torch.polar(torch.ones_like(angles), angles)

    @torch.no_grad()
    def forward(self, ids: Tensor, loops: int, threshold: float, cache: Cache | None = None, start: int = 0) -> Tensor:
        """ids [B, T] at positions start.. -> logits [B, T, V]; `cache` is read and appended to."""
        c, w, T = self.config, self.w, ids.shape[1]
        frequencies = self.frequencies[start : start + T]
        mask = torch.full((T, T), float("-inf")).triu(1) if T > 1 else None
        x = F.embedding(ids, w["embed.weight"])
        for i in range(c.prelude_layers):
            x = self.block(x, f"prelude.{i}.", frequencies, mask, cache, f"prelude_{i}")
        h = e = x
        halted = torch.zeros(ids.shape, dtype=torch.bool)
        cumulative = torch.zeros(ids.shape)
        out = torch.zeros_like(h)
        for t in range(loops):
            u = rms_norm(self.loop_index(h, t) + e, w["recurrent.norm.weight"])
            y = self.block(u, "recurrent.block.", frequencies, mask, cache, f"loop_{t}")
            scale = w["recurrent.lora.scale.weight"][min(t, c.max_loop_iters - 1)]
            y = y + (F.linear(y, w["recurrent.lora.down.weight"]) * scale) @ w["recurrent.lora.B"]
            dt = (w["recurrent.injection.log_dt"] + w["recurrent.injection.log_A"]).clamp(-20, 20)
            h = torch.exp(-torch.exp(dt)) * h + w["recurrent.injection.B"] * e + y
            p = torch.sigmoid(F.linear(h, w["recurrent.act.halt.weight"], w["recurrent.act.halt.bias"])).squeeze(-1)
            running = ~halted
            last = cumulative + p >= threshold
            weight = torch.where(last, (1 - cumulative).clamp(min=0), p) * running.float()
            out = out + weight.unsqueeze(-1) * h
            cumulative = cumulative + p * running.float()
            halted = halted | (cumulative >= threshold)
            if cache is None and halted.all():
                break
        for i in range(c.coda_layers):
            out = self.block(out, f"coda.{i}.", frequencies, mask, cache, f"coda_{i}")
        return F.linear(rms_norm(out, w["norm.weight"]), w["embed.weight"])

    def loop_index(self, h: Tensor, t: int) -> Tensor:
        L = self.config.dim // 8
        frequency = 1.0 / 10000 ** (torch.arange(0, L, 2).float() / L)
        embedding = torch.cat([(t * frequency).sin(), (t * frequency).cos()])[:L]
        return h + F.pad(embedding, (0, h.shape[-1] - L))

    def block(
        self, x: Tensor, prefix: str, frequencies: Tensor, mask: Tensor | None, cache: Cache | None, key: str
    ) -> Tensor:
        normed = rms_norm(x, self.w[f"{prefix}attn_norm.weight"])
        x = x + self.attention(normed, f"{prefix}attn.", frequencies, mask, cache, key)
        ffn = self.moe if prefix.startswith("recurrent") else self.swiglu
        return x + ffn(rms_norm(x, self.w[f"{prefix}ffn_norm.weight"]), f"{prefix}ffn.")

    def attention(
        self, x: Tensor, prefix: str, frequencies: Tensor, mask: Tensor | None, cache: Cache | None, key: str
    ) -> Tensor:
        c, w = self.config, self.w
        B, T, _ = x.shape
        H, nope, P, v_dim, R = c.n_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, c.kv_lora_rank
        c_q = rms_norm(F.linear(x, w[f"{prefix}q_down.weight"]), w[f"{prefix}q_norm.weight"])
        q_nope = F.linear(c_q, w[f"{prefix}q_up_nope.weight"]).view(B, T, H, nope)
        q_rope = rotate(F.linear(c_q, w[f"{prefix}q_up_rope.weight"]).view(B, T, H, P), frequencies)
        q = torch.cat([q_nope, q_rope], -1)
        c_kv, k_rope = F.linear(x, w[f"{prefix}kv_down.weight"]).split([R, P], -1)
        k_rope = rotate(k_rope.unsqueeze(2).expand(B, T, H, P).contiguous(), frequencies)
        if cache is not None:
            if key in cache:
                c_kv, k_rope = torch.cat([cache[key][0], c_kv], 1), torch.cat([cache[key][1], k_rope], 1)
            cache[key] = (c_kv.detach(), k_rope.detach())
        S = c_kv.shape[1]
        kv = F.linear(rms_norm(c_kv, w[f"{prefix}kv_norm.weight"]), w[f"{prefix}kv_up.weight"])
        k_nope, v = kv.view(B, S, H, nope + v_dim).split([nope, v_dim], -1)
        k = torch.cat([k_nope, k_rope], -1)
        scores = torch.matmul(q.transpose(1, 2), k.permute(0, 2, 3, 1)) * (nope + P) ** -0.5
        if mask is not None:
            scores = scores + F.pad(mask, (S - T, 0))
        rows = torch.matmul(F.softmax(scores, -1), v.transpose(1, 2)).transpose(1, 2).reshape(B, T, H * v_dim)
        return F.linear(rows, w[f"{prefix}wo.weight"])

    def swiglu(self, x: Tensor, prefix: str) -> Tensor:
        gate, up, down = (self.w[f"{prefix}{name}.weight"] for name in ("gate", "up", "down"))
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def moe(self, x: Tensor, prefix: str) -> Tensor:
        c, flat = self.config, x.reshape(-1, x.shape[-1])
        logits = F.linear(flat, self.w[f"{prefix}router.weight"])
        scores = F.softmax(logits, -1)
        chosen = (logits + self.w[f"{prefix}router_bias"]).topk(c.n_experts_per_tok, -1).indices
        weights = scores.gather(-1, chosen)
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for slot in range(c.n_experts_per_tok):
            for expert in range(c.n_experts):
                mask = chosen[:, slot] == expert
                if not mask.any():
                    continue
                routed = self.swiglu(flat[mask], f"{prefix}routed_experts.{expert}.")
                out[mask] += weights[mask, slot].unsqueeze(-1) * routed
        for j in range(c.n_shared_experts):
            out = out + self.swiglu(flat, f"{prefix}shared_experts.{j}.")
        return out.view_as(x)
