"""Training: it learns, it resumes in the same bits, and it refuses what it cannot go on with."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from mythos_model import CheckpointError, MythosModel, load_checkpoint
from mythos_model.training import TASKS, Hops, Text, TrainingDiverged, train
from mythos_model.training.__main__ import main
from mythos_model.training.schedule import Schedule
from mythos_model.training.tasks import corpus

WORDS = b"the quick brown fox jumps over the lazy dog and runs away. " * 40


def small_text() -> Text:
    return Text(batch=2, window=24, checked=2, texts=(WORDS, WORDS[: 24 * 8]))


def small_hops() -> Hops:
    return Hops(batch=4, questions=3, checked=1)


@pytest.mark.parametrize("make", [small_hops, small_text])
def test_a_resumed_run_ends_in_the_same_bits(make: type[Hops] | type[Text], tmp_path: Path) -> None:
    whole = train(make(), tmp_path / "whole", steps=6, seed=5)
    first = train(make(), tmp_path / "parts", steps=6, seed=5, minutes=0)  # one step, then out of time
    assert (first.step, first.evaluation) == (1, None)
    second = train(make(), tmp_path / "parts", steps=6, seed=5, resume=True)
    assert second.step == 6
    assert second.evaluation == whole.evaluation
    one, other = (load_file(tmp_path / name / "training.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


def test_the_task_resumes_in_its_lesson(tmp_path: Path) -> None:
    task = small_hops()
    task.lesson, task.lesson_steps, task.accuracy = 2, 7, 0.5
    again = small_hops()
    again.restore(json.loads(json.dumps(task.state())))
    assert (again.deepest, again.lesson_steps, again.accuracy) == (4, 7, 0.5)


def test_another_run_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="to resume from"):
        train(small_hops(), tmp_path, resume=True)
    train(small_hops(), tmp_path, steps=2, minutes=0)
    with pytest.raises(CheckpointError, match="'seed': 0.* asked for was .*'seed': 1"):
        train(small_hops(), tmp_path, steps=2, seed=1, resume=True)
    with pytest.raises(CheckpointError, match="'batch': 4.* asked for was .*'batch': 8"):
        train(Hops(batch=8, questions=3, checked=1), tmp_path, steps=2, resume=True)
    with pytest.raises(CheckpointError, match="another configuration"):
        train(small_text(), tmp_path, steps=2, resume=True)
    file = tmp_path / "training.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="no readable training checkpoint"):
        train(small_hops(), tmp_path, steps=2, resume=True)


def test_another_text_is_another_run(tmp_path: Path) -> None:
    train(small_text(), tmp_path, steps=2, minutes=0)
    with pytest.raises(CheckpointError, match="texts"):
        train(Text(batch=2, window=24, checked=2, texts=(WORDS[1:], WORDS[: 24 * 8])), tmp_path, steps=2, resume=True)


# Named: the bytes hold the time of day, and the processes of a run have to agree on the tests' names.
@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(WORDS)[:-20], gzip.compress(b"\xff\xfe")],
    ids=["no gzip", "cut off", "no text"],
)
def test_a_damaged_corpus_is_said(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "jargon.txt.gz"
    file.write_bytes(content)
    with pytest.raises(corpus.CorpusMissing, match="is damaged"):
        corpus.read(file)


def test_divergence_stops_the_run(tmp_path: Path) -> None:
    class Broken(Text):
        def loss(self, model: MythosModel, random: np.random.Generator) -> tuple[Tensor, Tensor, dict[str, float]]:
            loss, load, metrics = super().loss(model, random)
            return loss * torch.nan, load, metrics

    with pytest.raises(TrainingDiverged, match="step 1: the loss is nan"):
        train(Broken(batch=2, window=24, texts=(WORDS, WORDS)), tmp_path, steps=2)


def test_schedule_rises_and_falls() -> None:
    factors = [Schedule(100, warmup=10, floor=0.1).factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[9]
    assert factors[9:] == sorted(factors[9:], reverse=True)
    assert factors[-1] == pytest.approx(0.1)


@pytest.mark.slow
def test_smoke_training_of_hops_learns_to_follow_an_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "hops", lambda: Hops(checked=1))
    done = CliRunner().invoke(main, ["hops", "--out", str(tmp_path), "--steps", "150", "--json"])
    assert done.exit_code == 0, done.output
    history = json.loads((tmp_path / "training.json").read_text())["history"]
    followed = [record["followed"] for record in history]  # chance is one in 6 to 12
    assert sum(followed[:5]) / 5 < 0.25 < 0.3 < sum(followed[-3:]) / 3
    assert json.loads(done.stdout.splitlines()[-1])["history"] == history[-1:]
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config == Hops.config
    assert (tmp_path / "training.svg").read_text().count("<svg") == 1
    assert set(load_file(tmp_path / "held_out.safetensors")) == {"input_ids", "answer", "hops", "trees"}
    again = CliRunner().invoke(main, ["hops", "--out", str(tmp_path)])
    assert again.exit_code == 2
    assert "--resume goes on with it" in " ".join(again.output.split())


def test_text_learns_its_sentence(tmp_path: Path) -> None:
    result = train(Text(batch=4, window=48, checked=2, texts=(WORDS, WORDS[: 48 * 8])), tmp_path, steps=40)
    bits = [record["bits per byte"] for record in result.history]
    assert bits[-1] < 0.6 * bits[0]


def test_corpus_is_unwrapped_and_split(tmp_path: Path) -> None:
    wrapped = "   Paragraph {} says “nothing”\n   much, but says it — over\n   {} lines of text.\n"
    paragraphs = [wrapped.format(n, n) for n in range(40)]
    file = tmp_path / "jargon.txt.gz"
    file.write_bytes(gzip.compress("\n".join([*paragraphs, "   Contents\n"]).encode()))
    trained, held_out = corpus.read(file)
    assert held_out.split(b"\n") == [
        b'Paragraph %d says "nothing" much, but says it -- over %d lines of text.' % (n, n) for n in (19, 39)
    ]
    assert len(trained.split(b"\n")) == 38
    assert b"Contents" not in trained


def test_missing_corpus_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(corpus.CorpusMissing, match="apt-get, dpkg-deb is missing.*jargon.txt.gz") as caught:
        corpus.fetch(tmp_path / "corpus")
    assert caught.value.exit_code == 3
