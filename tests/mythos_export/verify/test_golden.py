"""Golden cases: their tolerances, their file, fresh ones, and what of eager itself is a failure."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_bundles import GOLDEN

from mythos_export.verify import run
from mythos_export.verify.golden import Golden, load_golden, make_golden, make_random, save_golden
from mythos_export.verify.growth import fit
from mythos_export.verify.tolerances import EPSILON, FACTOR
from mythos_model import MythosModel, load_checkpoint
from mythos_runtime import read_manifest

CHECKPOINT = GOLDEN / "training_checkpoint" / "step_0000010.pt"


def test_tolerances_are_eager_s_own_error_times_the_factor(golden: Golden) -> None:
    largest = max(result.errors["logits"][0] for result in golden.eager)
    floor = 2 * EPSILON["fp32"]
    assert golden.tolerances.of("logits", 0) == pytest.approx(max(FACTOR * largest, floor))
    assert all(np.diff(series).min(initial=0) >= 0 for series in golden.tolerances.tensors.values())
    assert golden.tolerances.of("h", 1000) == golden.tolerances.tensors["h"][-1]
    (check,) = golden.checks
    assert check.name == "spectral radius" and 0 < check.value < check.bound == 1


def test_golden_cases_survive_the_file(golden: Golden, tmp_path: Path) -> None:
    save_golden(golden, tmp_path / "golden.safetensors")
    again = load_golden(tmp_path / "golden.safetensors", golden.spec)
    assert again.tolerances == golden.tolerances and again.eager == golden.eager and again.text == golden.text
    assert again.checks == golden.checks
    for case, other in zip(golden.cases, again.cases, strict=True):
        assert case.name == other.name
        for name, array in case.trace.arrays.items():
            assert np.array_equal(array, other.trace[name]) and array.dtype == other.trace[name].dtype


def test_growth_is_fitted() -> None:
    assert fit("h", "case", [1e-6 * 1.5**n for n in range(8)]).factor == pytest.approx(1.5)
    assert fit("h", "case", [0.0, 1e-6, math.inf]).factor is None


def test_fresh_cases_hold_padding_pasts_and_near_ties_and_pass(bundle: Path, golden: Golden, only_onnx: None) -> None:
    loaded = load_checkpoint(CHECKPOINT)
    fresh = make_random(MythosModel.from_state(loaded.config, loaded.state, torch.float32), "fp32", 18, seed=3)
    assert [c.name for c in fresh.cases] == [
        c.name
        for c in make_random(
            MythosModel.from_state(loaded.config, loaded.state, torch.float32), "fp32", 18, seed=3
        ).cases
    ]
    assert any(not case.real.all() for case in fresh.cases)
    assert any(case.inputs["past_lengths"].any() for case in fresh.cases)
    assert any(case.margins["halted"].min(initial=1) < 1e-6 for case in fresh.cases if "near tie" in case.name)
    assert len({int(case.outputs["loops"]) for case in fresh.cases}) > 2
    parity = run.verify_bundle(bundle, read_manifest(bundle), threads=1, golden=golden.joined(fresh))
    assert parity.passed, parity.verdict()
    assert len(parity.stages[1].results) == len(golden.cases) + 18


def test_a_state_that_does_not_decay_is_a_failure(bundle: Path, golden: Golden, only_onnx: None) -> None:
    unstable = dataclasses.replace(golden, checks=(golden.checks[0]._replace(value=1.0),))
    parity = run.verify_bundle(bundle, read_manifest(bundle), threads=1, golden=unstable)
    assert not parity.passed and "spectral radius" in parity.verdict()


def test_a_model_that_overflows_the_precision_is_a_failure_of_eager_itself(bundle: Path, only_onnx: None) -> None:
    loaded = load_checkpoint(CHECKPOINT)
    model = MythosModel.from_state(loaded.config, loaded.state, torch.float16)
    model.recurrent.block.ffn.routed_gate_up.mul_(1000)
    golden = make_golden(model, "fp16")
    stage = run._eager(golden)
    assert stage.failure is not None
    assert "NaN or infinite" in stage.failure.problem.text and "try fp32" in stage.failure.problem.text
