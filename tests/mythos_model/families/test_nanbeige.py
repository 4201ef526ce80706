"""Nanbeige against golden cases of the model's own code; its configuration, and what tells the family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_families import GOLDEN, GoldenCase, cases
from safetensors.torch import load_file, save_file

from mythos_model import CheckpointError, ConfigError, load_checkpoint
from mythos_model.families.nanbeige import FAMILY

PREFILL = GOLDEN / "nanbeige_prefill"


@pytest.mark.parametrize("name", cases("nanbeige"))
def test_golden_cases(name: str) -> None:
    case = GoldenCase.load(name)
    checkpoint = load_checkpoint(case.folder)
    assert checkpoint.family is FAMILY
    case.check_eager(checkpoint.model(torch.float32))


@pytest.mark.parametrize("name", ["nanbeige_prefill", "nanbeige_norm_once_tied"])
def test_the_checkpoints_tensors_come_back_as_they_were(name: str) -> None:
    checkpoint = load_checkpoint(GOLDEN / name)
    state = checkpoint.model(torch.float32).reference_state()
    assert state.keys() == checkpoint.state.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in checkpoint.state.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling.*not scaled here"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, "rope_parameters.*not scaled here"),
        ({"enable_mhc": True}, "enable_mhc .hyper-connections"),
        ({"emb_neighbor_num": 3, "emb_split_num": 2}, "emb_neighbor_num.*emb_split_num.*n-gram"),
        ({"attention_bias": True}, "attention_bias"),
        ({"loop_loss_weights": [0.1, 0.2]}, "loop_loss_weights say another number of loops"),
        ({"num_loop": 3}, "num_loop.*did you mean num_loops"),
        ({"num_loops": 0}, "num_loops should be a positive integer"),
        ({"skip_loop_final_norm": 1}, "skip_loop_final_norm should be true or false"),
    ],
)
def test_what_is_not_computed_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(PREFILL, changed)


def test_a_folder_that_transformers_5_saved_is_the_same_model(tmp_path: Path) -> None:
    config = json.loads((PREFILL / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    original = load_checkpoint(PREFILL)
    width, theta = original.config.head_dim, original.config.rope_theta
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)]
    for base, dtype in ((theta, torch.float32), (theta, torch.bfloat16), (1.1 * theta, torch.float32)):
        table = (base ** -(torch.arange(0, width, 2) / width)).to(dtype)
        weights = load_file(PREFILL / "model.safetensors") | {name: table.clone() for name in names}
        save_file(weights, tmp_path / "model.safetensors")
        if base != theta:
            with pytest.raises(CheckpointError, match=r"rotary table .*inv_freq .* not the one for a base of"):
                load_checkpoint(tmp_path)
            return
        saved = load_checkpoint(tmp_path)
        assert saved.config == original.config
        assert saved.state.keys() == original.state.keys()


def test_tensors_alone_do_not_tell_a_loop(tmp_path: Path) -> None:
    """They carry the names of models without one; those of Ouro hold them too, and are told by their own."""
    save_file(load_file(PREFILL / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nothing tells.*those of nanbeige"):
        load_checkpoint(tmp_path)
    save_file(load_file(GOLDEN / "ouro_decode" / "model.safetensors"), tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="an Ouro checkpoint needs its config.json"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            ["model.layers.3.self_attn.q_proj.weight", "model.layers.3.ffn_norm.weight"],
            "tensors of nanbeige have the most",
        ),
        (
            ["transformer.core_blocks.0.attn.c_q.weight", "transformer.C.weight"],
            "tensors of parcae have the most similar",
        ),
        (["a.0.x", "b.0.y"], r"loopy'.*known are openmythos.*nanbeige\); CONTRIBUTING.md says how to add one"),
    ],
)
def test_an_unknown_model_is_told_which_family_is_most_like_it(
    tensors: list[str], message: str, tmp_path: Path
) -> None:
    save_file({name: torch.ones(2, 2) for name in tensors}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "loopy"}))
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(tmp_path)
