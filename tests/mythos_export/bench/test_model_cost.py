"""Counted FLOPs and bytes against PyTorch's own counter and against the parameters of the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mythos_export.bench.limits import SIZES_MB, best_of, reading_rate
from mythos_export.bench.model_cost import call_cost, fixed_cost, loop_cost
from mythos_export.bench.workloads import Workload
from mythos_model import MythosConfig, MythosModel

MLA = MythosConfig(
    vocab_size=96, dim=48, n_heads=4, max_seq_len=64, max_loop_iters=3, prelude_layers=1, coda_layers=2,
    kv_lora_rank=20, q_lora_rank=24, qk_rope_head_dim=6, qk_nope_head_dim=10, v_head_dim=14, n_experts=6,
    n_shared_experts=2, n_experts_per_tok=2, expert_dim=16, lora_rank=4,
)  # fmt: skip
GQA = MythosConfig(
    vocab_size=96, dim=48, n_heads=4, n_kv_heads=2, max_seq_len=64, max_loop_iters=3, prelude_layers=2, coda_layers=1,
    attn_type="gqa", n_experts=5, n_shared_experts=1, n_experts_per_tok=3, expert_dim=16, lora_rank=4,
)  # fmt: skip


def counted(config: MythosConfig, held: int, loops: int) -> int:
    """PyTorch's count for one token after `held`, batch 1."""
    model = MythosModel(config).reset_parameters()
    layers, loop = model.empty_past(1, loops)
    past = [torch.zeros(entries.shape[0], 1, held, config.cache_dim) for entries in (layers, loop)]
    vectors = {torch.ops.aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1]}  # PyTorch leaves them out
    with FlopCounterMode(display=False, custom_mapping=vectors) as counter, torch.no_grad():
        model(torch.tensor([[1]]), None, torch.tensor([held]), loops, 1e9, False, *past)
    return counter.get_total_flops()


@pytest.mark.parametrize("config", [MLA, GQA], ids=["mla", "gqa"])
def test_flops_of_a_token_are_those_that_pytorch_counts(config: MythosConfig) -> None:
    for held, loops in ((0, 1), (17, 1), (17, 3)):
        cost = call_cost(config, Workload("decode", 1, held, 1, loops), loops)
        assert cost.flops == counted(config, held, loops)


@pytest.mark.parametrize("config", [MLA, GQA], ids=["mla", "gqa"])
def test_bytes_are_the_weights_that_a_token_meets(config: MythosConfig) -> None:
    token = Workload("decode", 1, 0, 1, 1)
    cache = config.cache_dim * 4  # the token's own entry
    loop = loop_cost(config, token).bytes - cache
    small = 3 * config.dim + 2 * config.dim + 1 + config.dim + 1 + config.n_experts + 3 * config.lora_rank
    norms = config.q_lora_rank + config.kv_lora_rank if config.attn_type == "mla" else 0
    assert loop == 4 * (config.active_parameters_per_loop() - small - norms)
    layers = config.prelude_layers + config.coda_layers
    everything = 4 * config.parameter_count()
    assert fixed_cost(config, token).bytes + loop - layers * cache < everything


def test_a_batch_meets_more_experts_but_no_more_than_there_are() -> None:
    one, many = (loop_cost(MLA, Workload("prefill", n, 0, 1, 1)) for n in (1, 10_000))
    expert = 4 * 3 * MLA.dim * MLA.expert_dim
    cache = 4 * MLA.cache_dim
    assert many.bytes - 10_000 * cache - (one.bytes - cache) == pytest.approx(expert * 4, rel=1e-6)


def test_the_reading_rate_is_that_of_the_working_set() -> None:
    rounds = [
        {
            "read": {str(mb): {"a": 1e9 / mb, "b": 2e9 / mb} for mb in SIZES_MB},
            "product": {"a": 5e9, "b": 4e9},
        }
    ] * 2
    limits = best_of(rounds)
    assert limits["product"]["library"] == "a" and limits["read"][0]["library"] == "b"
    assert reading_rate(limits, 4e6) == pytest.approx(0.5e9)
    assert reading_rate(limits, 1) == pytest.approx(2e9) and reading_rate(limits, 1e12) == pytest.approx(2e9 / 160)
    assert 0.125e9 < reading_rate(limits, np.sqrt(4e6 * 16e6)) < 0.5e9
