"""The models that ship: small, loadable, and as good as their cards say."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mythos_model import MythosModel, load_checkpoint
from mythos_model.pretrained import NAMES, folder
from mythos_model.training import TASKS
from mythos_model.training.tasks import evaluate_walk
from mythos_model.training.tasks.evaluate_hops import TRAINED, HeldOut, evaluate


def shipped(name: str) -> MythosModel:
    checkpoint = load_checkpoint(folder(name))
    return MythosModel.from_state(checkpoint.config, checkpoint.state)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_folder_is_complete(name: str) -> None:
    files = {file.name: file.stat().st_size for file in folder(name).iterdir()}
    assert set(files) == {"README.md", "config.json", "held_out.safetensors", "model.safetensors", "training.json"}
    assert sum(files.values()) < 8e6
    assert load_checkpoint(folder(name)).config == TASKS[name].config  # the recipe is the one that trained it
    recorded = json.loads((folder(name) / "training.json").read_text())
    assert recorded["settings"] == {"task": name, "steps": TASKS[name].steps, "seed": 0}
    assert recorded["step"] == recorded["settings"]["steps"]


def test_there_are_no_other_models() -> None:
    with pytest.raises(ValueError, match="no model 'hop'; the models are hops, text, walk"):
        folder("hop")


def test_hops_thinks_as_long_as_its_question_is_deep() -> None:
    stored = load_file(folder("hops") / "held_out.safetensors")
    sample = HeldOut(*(stored[name].long()[::2] for name in ("input_ids", "answer", "hops", "trees")))
    report = evaluate(shipped("hops"), sample)
    trained = [row for row in report.by_hops if row.hops in TRAINED]
    beyond = [row for row in report.by_hops if row.hops >= 10]
    assert len(trained) == 8 and all(row.right >= 0.95 for row in trained)
    assert all(abs(row.depth - row.hops - 1) < 1 for row in report.by_hops)
    assert report.rank_correlation is not None and report.rank_correlation > 0.99
    assert all(row.right < 0.6 < 0.9 < row.right_deeper for row in beyond)  # more loops than training had


def test_walk_thinks_as_long_for_a_stop_as_the_way_to_it_is_long() -> None:
    stored = load_file(folder("walk") / "held_out.safetensors")
    sample = evaluate_walk.HeldOut(**{name: column.long()[::2] for name, column in stored.items()})
    report = evaluate_walk.evaluate(shipped("walk"), sample)
    assert [row.steps for row in report.by_steps] == [1, 2, 3, 4, 5, 6]
    assert all(row.right >= 0.99 and abs(row.depth - row.steps - 1) < 0.2 for row in report.by_steps)
    assert report.rank_correlation is not None and report.rank_correlation > 0.99
    assert [row.level for row in report.by_level] == [0, 1, 2, 3, 4, 5, 6]
    assert all(row.walks == 16 and row.whole >= 0.9 for row in report.by_level)  # all 12 stops right


def test_text_writes_bytes_better_than_it_could_guess() -> None:
    windows = load_file(folder("text") / "held_out.safetensors")["input_ids"].long()[:16]
    with torch.no_grad():
        logits = shipped("text")(windows[:, :-1]).logits
    bits = float(F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())) / math.log(2)
    assert bits < 3.0  # letter frequencies alone: about 4.5
