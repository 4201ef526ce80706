"""Huginn against the reference's golden cases: given states, caches, depths, and what its exits look at."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from golden_families import CLOSE, GOLDEN, GoldenCase, cases
from huginn_reference import Reference
from safetensors.torch import load_file

from mythos_model import ConfigError, load_checkpoint
from mythos_model.exits import Converged
from mythos_model.families.huginn import FAMILY
from mythos_model.taps import recording
from mythos_runtime.spec import MODEL

FIXED = ["huginn_decode", "huginn_few_loops_zero_state", "huginn_more_loops", "huginn_prefill"]


@pytest.mark.parametrize("name", FIXED)
def test_golden_cases(name: str) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder, case.config)
    assert checkpoint.family is FAMILY
    case.check_eager(checkpoint.model(torch.float32))


@pytest.mark.parametrize("name", [name for name in cases("huginn") if "_exit_" in name])
def test_exits_decide_as_the_reference_does(name: str) -> None:
    """Every value, every decision and every token of the reference's adaptive generation (`huginn_reference`)."""
    call = json.loads((GOLDEN / name / "case.json").read_text())["call"]
    io = load_file(GOLDEN / name / "io.safetensors")
    model = load_checkpoint(GOLDEN / name, exit_rule=call["criterion"]).model(torch.float32)
    assert (set(model.spec.graphs) == {MODEL}) == model.exit.reads_logits  # rows cannot share the coda's cache
    nothing = torch.zeros(model.before + model.after, 0, model.sizes.line)
    reference = Reference(model, call["cache_lookup_strategy"], call["max_steps"], nothing, [])
    ids, drawn = io["prompt_ids"].long(), io["initial_states"]
    tokens = ids[0].tolist()
    for forward, steps in enumerate(io["exit_steps"][0].tolist()):
        state, drawn = drawn[:, : ids.shape[1]], drawn[:, ids.shape[1] :]
        values, logits = reference.forward(ids, state, call["exit_threshold"])
        assert len(values) == steps
        assert np.allclose(values, io["exit_values"][forward, :steps], rtol=1e-4, atol=2e-6)
        expected = io["logits"][0, forward]
        assert float((logits - expected).abs().max()) <= CLOSE * float(expected.abs().max())
        tokens.append(int(logits.argmax()))
        ids = torch.tensor([tokens[-1:]])
    assert tokens == io["output_ids"][0].tolist()


@pytest.mark.parametrize("measure", ["latent-diff", "cosine"])
def test_a_threshold_of_0_lets_nobody_leave_not_even_who_stands_still(measure: str) -> None:
    h = torch.randn(40, 25, 64, generator=torch.Generator().manual_seed(1))
    rule = Converged(measure, 0.0)
    state = rule.start(h, torch.zeros(40, 25, dtype=torch.bool))
    state, running = rule.update(state, h, torch.tensor(0.0), torch.tensor(False))
    assert bool(running) and not state.halted.any()


def test_a_threshold_lets_every_token_leave_by_itself() -> None:
    model = load_checkpoint(GOLDEN / "huginn_prefill").model(torch.float32)
    ids = torch.arange(12).view(2, 6)
    whole = model(ids)
    assert set(whole.depth.flatten().tolist()) == {model.sizes.loops}
    with recording() as seen:
        model(ids)
    middle = float(torch.stack(seen.values["change"])[2].median())
    left = model(ids, halt_threshold=middle)
    assert 1 <= int(left.depth.min()) < int(left.depth.max()) <= model.sizes.loops


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"qk_bias": False}, "qk_bias"),
        ({"injection_type": "add"}, "injection_type"),
        ({"test_time_noise": 0.1}, "test_time_noise"),
        ({"exit": "kl-diff"}, "no exit 'kl-diff'"),
        ({"n_head": 3}, "did you mean n_heads"),
        ({"n_layers": 9}, "n_layers is 9, expected 8"),
        ({"head_dim": 24}, "head_dim is 24, expected 12"),
        ({"num_key_value_heads": 1}, "num_key_value_heads is 1, expected 2"),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(GOLDEN / "huginn_prefill", changed)


def test_the_checkpoints_tensors_come_back_as_they_were() -> None:
    checkpoint = load_checkpoint(GOLDEN / "huginn_prefill")
    state = checkpoint.model(torch.float32).reference_state()
    assert state.keys() == checkpoint.state.keys()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in checkpoint.state.items())
