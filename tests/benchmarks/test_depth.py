"""Depth curves: the statistics on curves that are known, the sweep and the reports on a real bundle."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from family_bundles import FamilyBundles
from golden_bundles import SHIPPED_HOPS, Bundles
from safetensors.numpy import load_file, save_file

import mythos_runtime
from benchmarks.depth.__main__ import main
from benchmarks.depth.curves import overthinking, recommend, saturation
from benchmarks.depth.sweep import Setting, Sweep, Task, read_task, run, settings_of, sweep
from mythos_model.pretrained import folder

LOOPS = np.arange(1.0, 17.0)


def noisy(curve: np.ndarray, inputs: int = 200, seed: int = 0) -> np.ndarray:
    """Losses [S, Q]: inputs differ much from each other, little from setting to setting."""
    random = np.random.default_rng(seed)
    return curve[:, None] + random.normal(0, 1, inputs) + random.normal(0, 0.05, (len(curve), inputs))


def test_saturation_finds_the_curve_again() -> None:
    fit = saturation(LOOPS, noisy(2.0 + 1.5 * np.exp(-LOOPS / 3.0)))
    for found, true in ((fit.gain, 1.5), (fit.scale, 3.0), (fit.floor, 2.0)):
        assert found.low < true < found.high
    assert fit.floor.high - fit.floor.low > 0.2  # inputs differ: their mean is uncertain
    assert fit.scale.high - fit.scale.low < 0.5  # and the shape is not
    assert fit.explained > 0.99
    assert fit.failed == 0


def test_a_staircase_is_not_explained() -> None:
    assert saturation(LOOPS, noisy(np.where(LOOPS < 15, 2.0, 0.0))).explained < 0.6


def test_overthinking_is_found_where_it_is_and_not_in_noise() -> None:
    v = overthinking(LOOPS, noisy(2.0 + 0.02 * (LOOPS - 8) ** 2))
    assert v.found and 7 <= v.best <= 9
    assert v.rise.low < v.rise.value < v.rise.high and v.rise.value == pytest.approx(0.02 * 64, abs=0.1)
    assert not overthinking(LOOPS, noisy(np.full(16, 2.0))).found
    assert not overthinking(LOOPS, noisy(2.0 + np.exp(-LOOPS))).found


def test_recommendation_keeps_the_budget_and_pays_no_more_than_needed() -> None:
    settings = tuple(Setting("max_loops", n, 0.99) for n in (1, 2, 3, 4))
    loss = noisy(np.array([3.0, 2.0, 1.0, 1.0]), inputs=3000)
    seconds = np.array([[0.001], [0.002], [0.003], [0.004]]) * np.ones(loss.shape)
    measured = Sweep(settings, loss, 0 * loss, 0 * loss, 0 * loss, seconds)
    assert recommend(measured, 2.5).setting == settings[1]
    assert recommend(measured, 99).setting == settings[2]  # 4 loops are no better
    few = Sweep(settings, loss[:, :9], 0 * loss, loss * 0, 0 * loss, seconds)
    assert recommend(few, 99).setting == settings[few.loss.mean(1).argmin()]  # nine inputs do not show them equal
    none = recommend(measured, 0.5)
    assert none.setting is None and none.cheapest_ms == pytest.approx(1.0)


def test_reports_of_a_bundle(bundles: Bundles, tmp_path: Path) -> None:
    stored = load_file(folder("hops") / "held_out.safetensors")
    trained = np.flatnonzero(stored["hops"] <= 8)[::16]
    file = tmp_path / "inputs.safetensors"
    save_file({name: np.ascontiguousarray(stored[name][trained]) for name in ("input_ids", "answer")}, file)
    arguments = [str(bundles[SHIPPED_HOPS]), "--data", str(file), "--max-loops", "12", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(main, [*arguments, "--name", "hops", "--budget-ms", "1e-6", "--budget-ms", "1e6"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert report == json.loads((tmp_path / "hops.json").read_text())
    points = {point["value"]: point for point in report["points"]["max_loops"]}
    assert points[2]["right"] < 0.7 < points[12]["right"] == 1.0
    assert points[2]["loops"] == 2 and points[12]["loops"] < 6.5  # it halts by itself
    assert [one["setting"] is None for one in report["recommended"]] == [True, False]
    page = (tmp_path / "hops.html").read_text()
    assert "Within 1e+06 ms" in page and report["command"] in page
    assert report["command"].endswith(
        "--data inputs.safetensors --name hops --max-loops 12 --budget-ms 1e-06 --budget-ms 1e+06"
    )
    drawn = CliRunner().invoke(main, [str(tmp_path / "hops.json"), "--picture", str(tmp_path / "curves.svg")])
    assert drawn.exit_code == 0, drawn.output
    assert "max_loops" in (tmp_path / "curves.svg").read_text()


def test_forced_loops_are_run_whichever_way_the_rule_compares(family_bundles: FamilyBundles) -> None:
    """Huginn's positions leave when a change falls below the threshold: a large one sends them away at once."""
    model = mythos_runtime.load(family_bundles["huginn_decode"], threads=1)
    forced = [setting for setting in settings_of(model, 4, (0.1,)) if setting.knob == "forced_loops"]
    task = Task(np.arange(6).reshape(1, 6), None)
    assert [run(model, task, 0, setting)[2:4] for setting in forced] == [(n, n) for n in (1, 2, 3, 4)]
    assert str(forced[1]) == "max_loops 2, no halting"
    assert math.isfinite(forced[0].halt_threshold)  # reports are JSON
    with pytest.raises(mythos_runtime.RequestError, match="there is no halting to sweep"):
        settings_of(mythos_runtime.load(family_bundles["parcae_decode"], threads=1), 4, ())


def test_language_models_are_asked_for_every_next_token(bundles: Bundles, tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    save_file({"input_ids": np.arange(10, dtype=np.int32).reshape(2, 5)}, file)
    model = mythos_runtime.load(bundles["gqa_prefill"])
    task = read_task(file)
    measured = sweep(model, task, (Setting("max_loops", 2, 0.99),))
    logits = model.forward(task.ids[:, :-1], max_loops=2).logits.astype(np.float64)
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log2(np.take_along_axis(probability, task.ids[:, 1:, None], -1)).mean((1, 2))
    np.testing.assert_allclose(measured.loss[0], expected, rtol=1e-4)


def test_inputs_of_another_form_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"ids": np.zeros((2, 3), np.int32)}, file)
    with pytest.raises(mythos_runtime.RequestError, match=r"should hold input_ids \[inputs, tokens\]"):
        read_task(file)
