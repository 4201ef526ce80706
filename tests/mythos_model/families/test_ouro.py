"""Ouro against the reference's golden cases: every exit rule, depths, caches; and its configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_families import GOLDEN, GoldenCase, cases

from mythos_model import ConfigError, load_checkpoint
from mythos_model.families.ouro import FAMILY


@pytest.mark.parametrize("name", cases("ouro"))
def test_golden_cases(name: str) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule)
    assert checkpoint.family is FAMILY
    case.check_eager(checkpoint.model(torch.float32))


def test_the_checkpoints_tensors_come_back_as_they_were() -> None:
    checkpoint = load_checkpoint(GOLDEN / "ouro_prefill")
    state = checkpoint.model(torch.float32).reference_state()
    assert state.keys() == checkpoint.state.keys()
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in checkpoint.state.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "huge", "architectures": []}, "huge.*no family.*ouro.*named like those of ouro"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"hidden_sise": 3}, "hidden_sise.*did you mean hidden_size"),
        ({"num_key_value_heads": 3}, "not divisible"),
        ({"exit": "entropy"}, "no exit 'entropy'.*quantile"),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(GOLDEN / "ouro_prefill", changed)


def test_another_exit_rule_may_be_asked_for_by_name() -> None:
    chosen = load_checkpoint(GOLDEN / "ouro_prefill", exit_rule="weighted").model(torch.float32)
    assert chosen.spec.exit.name == "weighted"
    hops = GOLDEN.parents[1] / "mythos_model" / "pretrained" / "hops"
    with pytest.raises(ConfigError, match="openmythos has one exit rule"):
        load_checkpoint(hops, exit_rule="weighted")


def test_a_step_that_the_configuration_fixes_answers() -> None:
    checkpoint = load_checkpoint(GOLDEN / "ouro_prefill", {"early_exit_step": 1})
    spec = checkpoint.model(torch.float32).spec
    knob = spec.exit.knob("halt_threshold")
    assert knob is not None
    assert (spec.trained_loops, knob.default > 1) == (2, True)
