"""Huginn against the reference's golden cases: given states, caches, depths, and what its exits look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden_families import GOLDEN, GoldenCase
from safetensors.torch import load_file

from mythos_model import ConfigError, load_checkpoint
from mythos_model.exits import Converged
from mythos_model.families.huginn import FAMILY
from mythos_model.taps import recording

FIXED = ["huginn_decode", "huginn_few_loops_zero_state", "huginn_more_loops", "huginn_prefill"]
EXITS = {"huginn_exit_latent_diff": "latent-diff", "huginn_exit_cosine": "cosine"}


@pytest.mark.parametrize("name", FIXED)
def test_golden_cases(name: str) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder, case.config)
    assert checkpoint.family is FAMILY
    case.check_eager(checkpoint.model(torch.float32))


@pytest.mark.parametrize("name", EXITS)
def test_exits_look_at_what_the_references_looks_at(name: str) -> None:
    """The reference's value is the mean over the prompt's positions, of which every one decides by itself here."""
    io = load_file(GOLDEN / name / "io.safetensors")
    model = load_checkpoint(GOLDEN / name, {"exit": EXITS[name]}).model(torch.float32)
    prompt = io["prompt_ids"].long()
    state = io["initial_states"][:, : prompt.shape[1]]
    with recording() as seen:
        model(prompt, max_loops=6, initial_state=state)
    values = torch.stack(seen.values["change"]).mean((1, 2)).numpy()
    ran = int(io["exit_steps"][0, 0])
    assert ran >= 1
    assert np.allclose(values[:ran], io["exit_values"][0, :ran], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("measure", EXITS.values())
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
        ({"exit": "kl"}, "no exit 'kl'"),
        ({"n_head": 3}, "did you mean n_heads"),
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
