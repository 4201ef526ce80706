"""Operator calls and models of real sizes, random, made on the device."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import torch

from mythos_model import MythosConfig, MythosModel
from mythos_model import ops as plain
from mythos_runtime.row_ports import PAGE

SMALL = MythosConfig(
    vocab_size=64,
    dim=32,
    n_heads=2,
    n_kv_heads=1,
    max_loop_iters=4,
    prelude_layers=1,
    coda_layers=1,
    kv_lora_rank=16,
    q_lora_rank=16,
    qk_rope_head_dim=16,
    qk_nope_head_dim=16,
    v_head_dim=16,
    n_experts=4,
    n_shared_experts=1,
    n_experts_per_tok=2,
    expert_dim=16,
    lora_rank=4,
    max_seq_len=64,
)
"""For dry runs."""

VARIANTS = ("1b", "10b", "100b")
_MOST_EXPERTS = {"1b": 64, "10b": 16, "100b": 8}  # of a case: all of 100b's are 170 GB
_MOST_SHARED = 16384


def config_of(variant: str, dry: bool) -> MythosConfig:
    """The sizes of a variant; in a dry run small ones."""
    return SMALL if dry else MythosConfig.variant(variant)


def triton_ops() -> dict[str, Any]:
    """The operators' Triton kernels as PyTorch calls them."""
    from mythos_export.kernels.eager import kernels

    return kernels()


@contextlib.contextmanager
def with_triton() -> Iterator[None]:
    """Models compute their operators with the kernels: eager code calls them through the module."""
    found = {name: kernel for name, kernel in triton_ops().items() if hasattr(plain, name)}
    kept = {name: getattr(plain, name) for name in found}
    for name, kernel in found.items():
        setattr(plain, name, kernel)
    try:
        yield
    finally:
        for name, kernel in kept.items():
            setattr(plain, name, kernel)


def double(case: dict[str, Any]) -> dict[str, Any]:
    """The same call in float64."""
    return {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in case.items()}


class Maker:
    """Draws tensors of order 1 on a device."""

    def __init__(self, device: str, dtype: torch.dtype, seed: int) -> None:
        self.device, self.dtype = device, dtype
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator, device=self.device).to(self.dtype)

    def weight(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator, device=self.device).mul_(shape[-1] ** -0.5).to(self.dtype)


def moe_case(config: MythosConfig, n: int, make: Maker, most_experts: int = 1 << 30) -> dict[str, Any]:
    """n tokens; of the model's experts no more than `most_experts`, of its shared ones no more than 16384 units."""
    c = config
    E, K = min(c.n_experts, most_experts), c.n_experts_per_tok
    D, F, Fs = c.dim, c.expert_dim, min(c.shared_ffn_dim, _MOST_SHARED)
    logits = make.normal(n, E).float()
    index = logits.topk(K, -1).indices
    return {
        "x": make.normal(n, D),
        "expert_index": index,
        "expert_weight": logits.gather(-1, index).softmax(-1).to(make.dtype),
        "routed_gate_up": make.weight(E, 2 * F, D),
        "routed_down": make.weight(E, D, F),
        "shared_gate_up": make.weight(2 * Fs, D),
        "shared_down": make.weight(D, Fs),
    }


def all_shared_case(config: MythosConfig, n: int, make: Maker) -> tuple[dict[str, Any], dict[str, Any]]:
    """n tokens and all shared units, of which only the last ones are not zero; and the same call of these alone. Those
    of 100b are more values than 32 bits count."""
    c, units = config, min(64, config.shared_ffn_dim)
    small = moe_case(c, n, make, c.n_experts_per_tok)
    small |= {"shared_gate_up": make.weight(2 * units, c.dim), "shared_down": make.weight(c.dim, units)}
    gate_up = torch.zeros(2 * c.shared_ffn_dim, c.dim, dtype=make.dtype, device=make.device)
    down = torch.zeros(c.dim, c.shared_ffn_dim, dtype=make.dtype, device=make.device)
    gate_up.view(2, -1, c.dim)[:, -units:] = small["shared_gate_up"].view(2, units, c.dim)
    down[:, -units:] = small["shared_down"]
    return small | {"shared_gate_up": gate_up, "shared_down": down}, small


def most_experts(variant: str) -> int:
    return _MOST_EXPERTS[variant]


def attention_case(
    config: MythosConfig, op: str, B: int, T: int, S: int, make: Maker, ragged: bool = True
) -> dict[str, Any]:
    """B sequences of up to S entries, of which the shortest has half, and T new tokens each."""
    c = config
    lengths = torch.full((B,), S, device=make.device)
    if ragged and B > 1:
        lengths = torch.linspace(S // 2, S, B, device=make.device).long()
    mla = op == "mla_attention"
    C = c.kv_lora_rank + c.qk_rope_head_dim if mla else 2 * c.n_kv_heads * c.head_dim
    common = {
        "past": make.normal(2, B, S, C),
        "layer": torch.tensor(1, device=make.device),
        "chunk": make.normal(B, T, C),
        "positions": lengths[:, None] + torch.arange(T, device=make.device),
        "past_lengths": lengths,
    }
    if not mla:
        q = make.normal(B, T, c.n_heads, c.head_dim)
        return {"q": q, **common, "scale": c.head_dim**-0.5, "kv_heads": c.n_kv_heads}
    nope, P, v = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    return {
        "q_nope": make.normal(B, T, c.n_heads, nope),
        "q_rope": make.normal(B, T, c.n_heads, P),
        **common,
        "kv_up": make.weight(c.n_heads * (nope + v), c.kv_lora_rank),
        "scale": (nope + P) ** -0.5,
        "v_head_dim": v,
    }


def paged_case(config: MythosConfig, op: str, rows: int, length: int, make: Maker) -> dict[str, Any]:
    """As many sequences as rows, each with one new token behind `length` entries in pages of its own."""
    c, blocks = config, length // PAGE + 1
    mla = op.startswith("paged_mla")
    C = c.kv_lora_rank + c.qk_rope_head_dim if mla else 2 * c.n_kv_heads * c.head_dim
    order = torch.randperm(rows * blocks, generator=torch.Generator().manual_seed(rows)).to(make.device)
    common = {
        "entry": make.normal(rows, C),
        "cache": make.normal(rows * blocks, PAGE, C),
        "tables": order.reshape(rows, blocks),
        "span": torch.arange(rows, device=make.device),
        "position": torch.full((rows,), length, device=make.device),
    }
    if not mla:
        q = make.normal(rows, c.n_heads, c.head_dim)
        return {"q": q, **common, "scale": c.head_dim**-0.5, "kv_heads": c.n_kv_heads}
    nope, P, v = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    return {
        "q_nope": make.normal(rows, c.n_heads, nope),
        "q_rope": make.normal(rows, c.n_heads, P),
        **common,
        "kv_up": make.weight(c.n_heads * (nope + v), c.kv_lora_rank),
        "scale": (nope + P) ** -0.5,
        "v_head_dim": v,
    }


def norm_case(config: MythosConfig, rows: int, make: Maker) -> dict[str, Any]:
    """Rows of the loop's state, which is float32 at any precision."""
    x = make.normal(rows, config.dim).float()
    return {"x": x, "weight": make.normal(config.dim), "eps": 1e-6}


def rotary_case(config: MythosConfig, rows: int, make: Maker) -> dict[str, Any]:
    """All heads of MLA's queries."""
    heads, P = config.n_heads, config.qk_rope_head_dim
    angles = make.normal(rows, P // 2).float() * 1000
    return {"x": make.normal(rows, heads * P), "cos": angles.cos(), "sin": angles.sin(), "heads": heads}


def tail_case(config: MythosConfig, rows: int, make: Maker) -> dict[str, Any]:
    """What ends an iteration, of rows that halt now and that never do: no decision depends on a rounding."""
    D, K = config.dim, config.lora_rank
    state = {name: make.normal(rows, D).float() for name in ("h", "encoded", "out")}
    return {
        "x": make.normal(rows, D),
        "update": make.normal(rows, D),
        "lora_down": make.weight(K, D),
        "lora_scale": make.normal(rows, K),
        "lora_up": make.normal(K, D) * K**-0.5,
        **state,
        "decay": make.normal(D).float(),
        "gain": make.normal(D).float(),
        "cumulative": torch.zeros(rows, device=make.device),
        "halted": torch.zeros(rows, dtype=torch.bool, device=make.device),
        "depth": torch.zeros(rows, dtype=torch.int32, device=make.device),
        "weight": make.weight(1, D).float(),
        "bias": torch.zeros(1, device=make.device),
        "threshold": torch.arange(rows, device=make.device).remainder(2) * 2.0,
    }


def model_of(
    config: MythosConfig, device: str, dtype: torch.dtype, attention: Literal["mla", "gqa"] = "mla"
) -> MythosModel:
    """A random model, made on the device; its tokens halt at different depths."""
    with torch.device("meta"):
        model = MythosModel(dataclasses.replace(config, attn_type=attention))
    model = model.to_empty(device=device).to(dtype)
    make = Maker(device, torch.float32, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # as MythosModel.reset_parameters, on the device
            noise = make.normal(*parameter.shape)
            if name.endswith(("norm.weight", "lora.scale.weight")):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("halt.bias"):
                parameter.fill_(-1.0)
            elif parameter.ndim < 2:
                parameter.copy_(0.1 * noise + (0.1 if name.endswith("injection.B") else 0.0))
            else:
                parameter.copy_(noise * max(parameter.shape[-1], 1) ** -0.5)
        model.recurrent.act.halt.weight.mul_(2.0)
    return model.requires_grad_(False).eval()


def call_of(model: MythosModel, device: str, B: int, T: int, S: int) -> dict[str, Any]:
    """Arguments of `model`: T new tokens behind S, at every depth."""
    c = model.config
    make = Maker(device, model.dtype, 7)
    past = {"loop": make.normal(c.max_loop_iters, B, S, c.cache_dim)}
    around = c.prelude_layers + c.coda_layers
    if around:
        past["layers"] = make.normal(around, B, S, c.cache_dim)
    ids = (make.normal(B, T).float().abs() * 1000).long() % c.vocab_size
    return {
        "input_ids": ids,
        "past_lengths": torch.full((B,), S, device=device),
        "max_loops": c.max_loop_iters,
        "past": past,
    }
