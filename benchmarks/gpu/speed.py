"""Kernels of the 1b variant in bf16 against what PyTorch offers and against what the GPU can do."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.cases import (
    Maker,
    attention_case,
    call_of,
    config_of,
    model_of,
    moe_case,
    paged_case,
    triton_ops,
    with_triton,
)
from benchmarks.gpu.run import Run
from mythos_model import ops as plain
from mythos_model import paged_ops
from mythos_model.products import by_expert, groupable, moe, swiglu
from mythos_model.state import Call

_TOKENS = (1, 2, 4, 8, 9, 16, 64, 512, 4096)
_ROWS = ((1, 128), (1, 4096), (64, 4096), (256, 1024))
_CALLS = ((1, 1, 128), (1, 1, 4096), (1, 1, 32768), (64, 1, 4096), (1, 512, 0), (1, 4096, 0))


def main(run: Run) -> None:
    config, dtype = config_of("1b", run.dry), torch.float32 if run.dry else torch.bfloat16
    for n in (1, 20) if run.dry else _TOKENS:
        with run.record.step(f"moe n={n}"):
            run.record.say(f"moe n={n}", _moe(run, moe_case(config, n, Maker(run.device, dtype, n))))
    for B, T, S in ((1, 1, 16), (1, 20, 0)) if run.dry else _CALLS:
        for op in ("mla_attention", "gqa_attention"):
            key = f"{op} B={B} T={T} S={S}"
            with run.record.step(key):
                case = attention_case(config, op, B, T, S, Maker(run.device, dtype, 1), ragged=False)
                run.record.say(key, (_mla if op == "mla_attention" else _gqa)(run, case))
    for rows, length in ((1, 16), (2, 40)) if run.dry else _ROWS:
        for op in ("paged_mla_attention_", "paged_gqa_attention_"):
            key = f"{op} rows={rows} length={length}"
            with run.record.step(key):
                case = paged_case(config, op, rows, length, Maker(run.device, dtype, 1))
                run.record.say(key, _paged(run, op, case))
    with run.record.step("one iteration"):
        run.record.say("one iteration", _iteration(run))


def grouped(case: dict[str, Any]) -> torch.Tensor:
    """What a user writes: torch's grouped product, and two plain ones for the shared experts."""
    routed = by_expert(*(case[k] for k in ("x", "expert_index", "expert_weight", "routed_gate_up", "routed_down")))
    return routed + swiglu(case["x"], case["shared_gate_up"], case["shared_down"])


def _moe(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    (n, D), (_, _, width), shared = case["x"].shape, case["routed_down"].shape, case["shared_down"].shape[1]
    used, element = int(case["expert_index"].unique().numel()), case["x"].element_size()
    size = element * (3 * width * D * used + 3 * shared * D + 2 * n * D)
    operations = 6 * n * D * (case["expert_index"].shape[1] * width + shared)
    contestants = {"triton": lambda: triton_ops()["moe"](**case), "plain": lambda: moe(**case)}
    if groupable(case["x"], case["routed_gate_up"], case["routed_down"]):
        contestants["grouped_mm"] = lambda: grouped(case)
    row = run.contest(contestants, max(size / run.bandwidth, operations / run.flops))
    return {"experts_used": used, "bytes": size, "operations": operations, **row}


def _mla(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    B, T, H, nope = case["q_nope"].shape
    P, S, v, R = case["q_rope"].shape[-1], case["past"].shape[2], case["v_head_dim"], case["kv_up"].shape[1]
    C, element = R + P, case["chunk"].element_size()
    w_uk, w_uv = case["kv_up"].view(H, nope + v, R).split([nope, v], 1)
    keys = torch.cat([case["past"][int(case["layer"])], case["chunk"]], 1).unsqueeze(1)  # [B, 1, S + T, C]
    mask = None if T == 1 else torch.ones(T, S + T, dtype=torch.bool, device=keys.device).tril(S)

    def absorbed() -> torch.Tensor:
        """PyTorch's attention over the latents: one kv head."""
        q = torch.cat([torch.einsum("bthn,hnr->bthr", case["q_nope"], w_uk), case["q_rope"]], -1).transpose(1, 2)
        every = keys.expand(-1, H, -1, -1)
        o = F.scaled_dot_product_attention(q, every, every[..., :R], attn_mask=mask, scale=case["scale"])
        return torch.einsum("bhtr,hvr->bthv", o, w_uv)

    def expanded() -> torch.Tensor:
        """Over keys and values that are made per head; for a prompt, PyTorch's causal kernel."""
        latent = keys[..., :R]
        k_nope, value = latent @ w_uk.transpose(-1, -2), latent @ w_uv.transpose(-1, -2)
        k = torch.cat([k_nope, keys[..., R:].expand(-1, H, -1, -1)], -1)
        q = torch.cat([case["q_nope"], case["q_rope"]], -1).transpose(1, 2)
        causal = {"is_causal": True} if S == 0 and T > 1 else {"attn_mask": mask}
        return F.scaled_dot_product_attention(q, k, value, scale=case["scale"], **causal).transpose(1, 2)

    pairs = B * (T * S + T * (T + 1) // 2)
    size = element * (B * (S + T) * C + H * (nope + v) * R + B * T * H * (nope + v + P))
    both = (pairs * (C + R) + B * T * (nope + v) * R, pairs * (nope + v + P) + B * (S + T) * (nope + v) * R)
    operations = 2 * H * min(both)
    contestants = {
        "triton": lambda: triton_ops()["mla_attention"](**case),
        "plain": lambda: plain.mla_attention(**case),
        "sdpa_absorbed": absorbed,
        "sdpa_expanded": expanded,
    }
    row = run.contest(contestants, max(size / run.bandwidth, operations / run.flops))
    return {"bytes": size, "operations": operations, **row}


def _gqa(run: Run, case: dict[str, Any]) -> dict[str, Any]:
    B, T, H, hd = case["q"].shape
    S, G = case["past"].shape[2], case["kv_heads"]
    stored = torch.cat([case["past"][int(case["layer"])], case["chunk"]], 1).view(B, S + T, 2, G, hd)
    k, v = stored.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    mask = None if T == 1 else torch.ones(T, S + T, dtype=torch.bool, device=k.device).tril(S)
    q = case["q"].transpose(1, 2)
    causal = {"is_causal": True} if S == 0 and T > 1 else {"attn_mask": mask}

    def sdpa() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=case["scale"], enable_gqa=True, **causal)

    pairs = B * (T * S + T * (T + 1) // 2)
    size, operations = (
        case["chunk"].element_size() * (B * (S + T) * 2 * G * hd + 2 * B * T * H * hd),
        4 * H * pairs * hd,
    )
    contestants = {
        "triton": lambda: triton_ops()["gqa_attention"](**case),
        "plain": lambda: plain.gqa_attention(**case),
        "sdpa": sdpa,
    }
    row = run.contest(contestants, max(size / run.bandwidth, operations / run.flops))
    return {"bytes": size, "operations": operations, **row}


def _paged(run: Run, op: str, case: dict[str, Any]) -> dict[str, Any]:
    """Rows over pages, which nothing in PyTorch reads where they are; the limit is what has to be read."""
    element, (rows, C) = case["cache"].element_size(), case["entry"].shape
    size = element * rows * (int(case["position"][0]) + 2) * C
    contestants = {
        "triton": lambda: triton_ops()[op](**case),
        "plain": lambda: getattr(paged_ops, op)(**case),
    }
    return {"bytes": size, **run.contest(contestants, size / run.bandwidth)}


def _iteration(run: Run) -> dict[str, Any]:
    """One iteration of the 1b block, decoding: as it is, compiled by PyTorch, with the kernels."""
    config, dtype = config_of("1b", run.dry), torch.float32 if run.dry else torch.bfloat16
    model = model_of(config, run.device, dtype)
    given = call_of(model, run.device, 1, 1, 16 if run.dry else 128)
    lengths, scalar = given["past_lengths"], dict[str, Any](device=run.device)
    limits = torch.tensor(given["max_loops"], **scalar), torch.tensor(2.0, **scalar), torch.tensor(False, **scalar)
    context, _ = model.enter(given["input_ids"], Call(lengths.unsqueeze(1), lengths, *limits, given["past"]))
    first = model.start(context)
    contestants = {"plain": lambda: model.step(first, context)}
    if not run.dry:  # a compiler takes minutes where the sizes are small, too
        compiled = torch.compile(lambda: model.step(first, context), dynamic=False)
        contestants["compiled"] = compiled
    read = sum(p.numel() for name, p in model.recurrent.named_parameters() if "routed" not in name)
    read += config.n_experts_per_tok * 3 * config.dim * config.expert_dim
    limit = read * first.new_loop.element_size() / run.bandwidth
    row = run.contest(contestants, limit)
    with with_triton():
        row |= run.contest({"triton": lambda: model.step(first, context)}, limit)
    return row
