"""Parcae against the reference's golden cases: both injections, caches, depths, the files that its tools write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_families import GOLDEN, GoldenCase, cases

from mythos_model import CheckpointError, ConfigError, load_checkpoint
from mythos_model.families.parcae import FAMILY


@pytest.mark.parametrize("name", cases("parcae"))
def test_golden_cases(name: str) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder)
    assert checkpoint.family is FAMILY
    model = checkpoint.model(torch.float32)
    for alone in case.alone():
        alone.check_eager(model)


@pytest.mark.parametrize("name", ["parcae_decode", "parcae_linear_injection", "parcae_one_loop"])
def test_the_checkpoints_tensors_come_back_as_they_were(name: str) -> None:
    checkpoint = load_checkpoint(GOLDEN / name)
    state = checkpoint.model(torch.float32).reference_state()
    assert state.keys() == checkpoint.state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in checkpoint.state.items())


def test_a_table_without_a_gate_is_read_by_nobody() -> None:
    """The reference counts the coda's layers behind all loops: with three layers a loop, gates and tables part."""
    config = load_checkpoint(GOLDEN / "parcae_prefill").config
    assert (config.tables, config.gates, config.valued) == ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    other = FAMILY.configuration(**config.to_dict() | {"n_layers_in_recurrent_block": 3, "mean_recurrence": 2})
    assert (other.tables, other.gates) == ((0, 2, 4, 6), (1, 3, 6))
    assert other.valued == (6,)
    expected = FAMILY.shapes(other)
    assert {"value_embeds.0.weight", "transformer.prelude.1.attn.ve_gate.weight"} <= set(expected)
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.randn(shape, generator=generator) / 8 for name, shape in expected.items()}
    ids = torch.arange(6).unsqueeze(0)
    model = FAMILY.model.from_state(other, state)
    assert set(state) - set(model.reference_state()) == {
        *("value_embeds.0.weight", "value_embeds.2.weight", "value_embeds.4.weight"),
        *("transformer.prelude.1.attn.ve_gate.weight", "transformer.core_block.1.attn.ve_gate.weight"),
    }
    changed = {name: torch.zeros_like(x) if name == "value_embeds.6.weight" else x for name, x in state.items()}
    assert not torch.equal(model(ids).logits, FAMILY.model.from_state(other, changed)(ids).logits)


def test_a_tied_head_that_differs_is_no_head(tmp_path: Path) -> None:
    stored = torch.load(GOLDEN / "parcae_decode" / "pytorch_model.bin", weights_only=True)
    stored["lm_head.weight"] = stored["lm_head.weight"] + 1
    torch.save(stored, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((GOLDEN / "parcae_decode" / "config.json").read_text())
    with pytest.raises(CheckpointError, match="lm_head.weight differs from transformer.wte.weight"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"state_init": "unit"}, "state_init 'unit'.*like-init"),
        ({"injection_type": "gated"}, "injection_type 'gated'.*diagonal"),
        ({"nonlin_name": "Tanh"}, "nonlin_name"),
        ({"clip_qkv": 8.0}, "clip_qkv"),
        ({"recurrent_embedding_dimension": 64}, "recurrent_embedding_dimension.*n_embd"),
        ({"rope_settings": {"use_rope": False}}, "use_rope"),
        ({"rope_settings": {"rope_base": 777}}, "freqs_cis.*base of 777"),
        ({"n_embed": 3}, "n_embed.*did you mean n_embd"),
        ({"mean_recurrence": True}, "mean_recurrence"),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=message):
        load_checkpoint(GOLDEN / "parcae_prefill", changed)


def test_a_config_is_needed_and_found_by_its_class_or_its_tensors(tmp_path: Path) -> None:
    weights = (GOLDEN / "parcae_prefill" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ConfigError, match="Parcae checkpoint needs its config.json"):
        load_checkpoint(tmp_path)
    config = json.loads((GOLDEN / "parcae_prefill" / "config.json").read_text())
    del config["_class_name"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(tmp_path).family is FAMILY
