"""Checkpoints: every form is read, no file runs code, and whatever is wrong is one readable error."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mythos_model import CheckpointError, ConfigError, MythosConfig, MythosModel, load_checkpoint, save_checkpoint
from mythos_model.families.openmythos.names import infer_config, reference_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
TRAINING = GOLDEN / "training_checkpoint" / "step_0000010.pt"


def golden_config(case: str) -> MythosConfig:
    return MythosConfig(**json.loads((GOLDEN / case / "case.json").read_text())["config"])


def test_the_training_scripts_file_is_read_with_its_pickled_config() -> None:
    checkpoint = load_checkpoint(TRAINING)
    assert checkpoint.format == "training checkpoint"
    assert set(checkpoint.state) == set(reference_shapes(checkpoint.config))
    assert checkpoint.config.max_loop_iters > 0


@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill"])
def test_forms_hold_the_same_weights(case: str, tmp_path: Path) -> None:
    config = golden_config(case)
    state = load_file(GOLDEN / case / "model.safetensors")
    folder = save_checkpoint(tmp_path / "folder", config, state)
    names = sorted(state)
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    half = len(names) // 2
    for shard, part in (("a.safetensors", names[:half]), ("b.safetensors", names[half:])):
        save_file({name: state[name] for name in part}, sharded / shard)
    shards = {name: "a.safetensors" if name in names[:half] else "b.safetensors" for name in names}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (sharded / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["x"]}))
    torch.save({f"module.{n}": t for n, t in state.items()} | {"head.weight": state["embed.weight"]}, tmp_path / "m.pt")
    sources = [(folder, None), (folder / "model.safetensors", None), (sharded, None), (tmp_path / "m.pt", config)]
    for path, given in sources:
        checkpoint = load_checkpoint(path, config=given)
        assert checkpoint.config == config
        assert all(torch.equal(checkpoint.state[name], state[name]) for name in state)


def test_a_partial_config_completes_what_the_tensors_tell() -> None:
    for case in ("mla_prefill", "gqa_prefill"):
        config = golden_config(case)
        fields = ("max_seq_len", "act_threshold", "rope_theta", "n_heads")
        given = {name: getattr(config, name) for name in fields}
        found = infer_config(reference_shapes(config), given)
        assert reference_shapes(found) == reference_shapes(config)
        assert found.n_experts_per_tok == config.n_experts_per_tok


def test_missing_fields_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"max_seq_len, act_threshold, rope_theta, n_heads.*--config"):
        load_checkpoint(GOLDEN / "gqa_prefill" / "model.safetensors")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_hostile_pickle_does_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    torch.save({"model": {}, "cfg": Hostile(touched)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Hostile(touched)))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises(CheckpointError, match="wants to run code"):
            load_checkpoint(tmp_path / name)
    assert not touched.exists()


def test_damaged_files_are_one_line_each(tmp_path: Path) -> None:
    state_file = GOLDEN / "mla_prefill" / "model.safetensors"
    (tmp_path / "empty.pt").touch()
    (tmp_path / "cut.pt").write_bytes(TRAINING.read_bytes()[:5000])
    (tmp_path / "cut.safetensors").write_bytes(state_file.read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("these are not tensors")
    (tmp_path / "text.pt").write_text("these are not tensors")
    for name in ("empty.pt", "cut.pt", "cut.safetensors", "text.safetensors", "text.pt", "absent.pt", "."):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path / name, variant="1b")
        assert "\n" not in str(caught.value)


def test_a_renamed_file_is_told_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes((GOLDEN / "mla_prefill" / "model.safetensors").read_bytes())
    assert load_checkpoint(tmp_path / "weights.pt", config=golden_config("mla_prefill")).format == "safetensors"


def test_every_wrong_tensor_is_in_one_error(tmp_path: Path) -> None:
    config = golden_config("mla_prefill")
    state = load_file(GOLDEN / "mla_prefill" / "model.safetensors")
    del state["norm.weight"]
    state["surplus"] = torch.zeros(1)
    state["embed.weight"] = torch.zeros(3, 3)
    state["recurrent.act.halt.bias"] = torch.tensor([float("nan")])
    save_file(state, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "m.safetensors", config=config)
    for word in ("1 missing: norm.weight", "1 not expected: surplus", "embed.weight is [3, 3]", "NaN", "halt.bias"):
        assert word in str(caught.value)


def test_wrong_config_and_foreign_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="misshapen|missing"):
        load_checkpoint(TRAINING, variant="1b")
    with pytest.raises(ConfigError, match="unknown fields.*dimm.*did you mean dim"):
        load_checkpoint(TRAINING, config={"dimm": 64})
    with pytest.raises(ConfigError, match="both a configuration .* and the variant '1b'.*one of them"):
        load_checkpoint(TRAINING, config={"dim": 64}, variant="1b")
    index = {"weight_map": {"norm.weight": "../outside.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside the folder"):
        load_checkpoint(tmp_path, variant="1b")


def test_an_untied_head_is_an_error(tmp_path: Path) -> None:
    state = load_file(GOLDEN / "mla_prefill" / "model.safetensors")
    save_file(state | {"head.weight": state["embed.weight"] + 1}, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match="ties them"):
        load_checkpoint(tmp_path / "m.safetensors", config=golden_config("mla_prefill"))


def test_a_random_model_is_saved_and_read_back(tmp_path: Path) -> None:
    config = golden_config("gqa_prefill")
    model = MythosModel(config).reset_parameters(seed=1)
    checkpoint = load_checkpoint(save_checkpoint(tmp_path, config, model.reference_state()))
    again = MythosModel.from_state(checkpoint.config, checkpoint.state)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_configurations_that_no_checkpoint_can_have_are_refused_at_once(tmp_path: Path) -> None:
    fields = golden_config("gqa_prefill").to_dict()
    wrong = {"n_experts": 10**9, "prelude_layers": 10**8, "act_threshold": -5, "rope_theta": 1e300, "dropout": 99}
    wrong |= {"max_seq_len": 10**12, "dim": 10**400, "n_heads": "16", "vocab_size": True, "lora_rank": [[["x"] * 99]]}
    for name, value in wrong.items():
        with pytest.raises((CheckpointError, ConfigError), match=name):
            load_checkpoint(GOLDEN / "gqa_prefill" / "model.safetensors", config=fields | {name: value})
    whole = fields | {"n_heads": float(fields["n_heads"]), "dropout": None}
    loaded = load_checkpoint(GOLDEN / "gqa_prefill" / "model.safetensors", config=whole)
    assert loaded.config.n_heads == fields["n_heads"]


def test_a_rotary_table_of_another_configuration_is_refused(tmp_path: Path) -> None:
    for theta in (500000.0, 9900.0):
        with pytest.raises(CheckpointError, match="rotary table freqs_cis_mla"):
            load_checkpoint(TRAINING, config={"rope_theta": theta})
    huginn = Path(__file__).parents[1] / "golden_families" / "huginn_prefill"
    folder = shutil.copytree(huginn, tmp_path / "huginn")
    assert load_checkpoint(folder).config.rope_base == 50000
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_base": 10000}))
    with pytest.raises(CheckpointError, match="base of 10000"):
        load_checkpoint(folder)


def test_what_stands_before_all_names_is_taken_off(tmp_path: Path) -> None:
    state = load_file(GOLDEN / "gqa_prefill" / "model.safetensors")
    wrapped = {f"model.module.net.{name}": tensor for name, tensor in state.items()}
    torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "last.pt")
    assert set(load_checkpoint(tmp_path / "last.pt", config=golden_config("gqa_prefill")).state) == set(state)


def test_what_stands_before_some_names_is_told_with_the_option_that_takes_it_off(tmp_path: Path) -> None:
    config = golden_config("gqa_prefill")
    state = load_file(GOLDEN / "gqa_prefill" / "model.safetensors")
    wrapped = {f"actor.net.{name}": tensor for name, tensor in state.items()} | {"critic.head": torch.ones(1, 3)}
    torch.save(wrapped, tmp_path / "rl.pt")
    for given, words in (
        (config, "missing: .*they are there behind 'actor.net.': --weights-key actor.net"),
        (config.to_dict(), "behind 'actor.net.' they are named like those of openmythos: --weights-key actor.net"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(tmp_path / "rl.pt", config=given)
    assert set(load_checkpoint(tmp_path / "rl.pt", config=config, weights_key="actor.net").state) == set(state)


def test_what_training_counts_is_left_out_and_said_once(tmp_path: Path) -> None:
    state = load_file(GOLDEN / "gqa_prefill" / "model.safetensors")
    counted = {"recurrent.block.ffn.tokens_per_expert": torch.ones(8), "n_averaged": torch.tensor(3)}
    counted |= {f"coda.{i}.ffn.expert_load": torch.ones(8) for i in range(2)}
    torch.save(state | counted, tmp_path / "m.pt")
    checkpoint = load_checkpoint(tmp_path / "m.pt", config=golden_config("gqa_prefill"))
    assert set(checkpoint.state) == set(state)
    (note,) = (note for note in checkpoint.notes if "training alone" in note)
    assert all(name in note for name in counted)
