"""Verification knows tensors by what the spec says of them: here of a family that there is not (`handmade.py`)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import handmade
import numpy as np
import pytest

from mythos_export.verify import golden as golden_module
from mythos_export.verify.compare import compare, possible_ties
from mythos_export.verify.golden import Golden, load_golden, save_golden
from mythos_export.verify.measure import measure
from mythos_export.verify.parity import Parity
from mythos_export.verify.plots import growth_plot, panels_plot
from mythos_export.verify.reproduction import _cut
from mythos_export.verify.results import CaseResult, StageResult
from mythos_export.verify.tolerances import FACTOR, Tolerances
from mythos_export.verify.trace import state
from mythos_export.verify.truth import Asked
from mythos_runtime.errors import BundleError

BANDS = dict.fromkeys(("router.0", "router.0 after halting", "router.1", "done"), (0.1,))
TIGHT = Tolerances("fp32", {}, BANDS)


def changed(name: str, by, first: int = 2):  # type: ignore[no-untyped-def]
    """The case, and an answer in which a tensor of its trace is another one from an iteration on, at [1, 3]."""
    case = handmade.case()
    array = case.trace[name].copy()
    array[first:, 1, 3] = by(array[first:, 1, 3])
    return case, handmade.answer(case, **{name.replace(".", "__"): array})


def test_the_truth_agrees_with_itself() -> None:
    case = handmade.case()
    comparison = compare(case, handmade.answer(case), TIGHT)
    assert not comparison.problems and not comparison.near_ties
    assert set(comparison.errors) == {
        *(tensor.name for tensor in case.spec.trace if tensor.kind in ("value", "chosen")),
        "new_loop",
        "logits",
    }
    assert len(comparison.errors["new_loop"]) == handmade.LOOPS * handmade.SLOTS
    assert comparison.depths == {handmade.LOOPS: 9} and state(case.spec) == "s"


@pytest.mark.parametrize(
    ("name", "by", "words"),
    [
        ("entries.1", lambda x: x + 1, "entries.1 differs by"),
        ("router.1", lambda x: (x + 1) % handmade.EXPERTS, "other router.1 are chosen, 5.0e-01 away from a tie"),
        ("share.0", lambda x: x + 1e-3, "share.0 differs by 1.0e-03 of its scale"),
        ("moved", lambda x: x * np.nan, "moved holds NaN"),
        ("steps", lambda x: x + 1, "steps differs"),
        ("done", np.logical_not, "halts otherwise, 5.0e-01 away"),
        ("s", lambda x: x * 1.5, "s differs by"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_every_kind_of_tensor_is_judged_by_its_kind(name: str, by, words: str) -> None:  # type: ignore[no-untyped-def]
    case, answer = changed(name, by)
    first = compare(case, answer, TIGHT).problems[0]
    assert (first.tensor, first.iteration, first.position) == (name, 3, (1, 3))
    assert words in first.text


def test_a_choice_that_nobody_needs_any_more_may_be_another_one() -> None:
    case, answer = changed("router.1", lambda x: (x + 1) % handmade.EXPERTS)
    done = case.trace["done"].copy()
    done[1:, 1, 3] = True
    halted = dataclasses.replace(case, trace=handmade.Trace({**case.trace.arrays, "done": done}))
    answer = dataclasses.replace(answer, trace=handmade.Trace({**answer.trace.arrays, "done": done}))
    assert not compare(halted, answer, TIGHT).problems
    _, answer = changed("router.0", lambda x: (x + 1) % handmade.EXPERTS)
    answer = dataclasses.replace(answer, trace=handmade.Trace({**answer.trace.arrays, "done": done}))
    assert compare(halted, answer, TIGHT).problems[0].tensor == "router.0"  # others attend to what comes of it


def test_a_turned_choice_is_a_near_tie_within_its_own_band() -> None:
    case, answer = changed("router.1", lambda x: (x + 1) % handmade.EXPERTS)
    margin = case.margins["router.1"].copy()
    margin[2, 1, 3] = 0.05
    near = dataclasses.replace(case, margins={**case.margins, "router.1": margin})
    comparison = compare(near, answer, TIGHT)
    assert not comparison.problems
    (tie,) = comparison.near_ties
    assert (tie.row, tie.token, tie.iteration, tie.decision) == (1, 3, 3, "router.1")
    assert [(tie.iteration, tie.decision) for tie in possible_ties(near, TIGHT)] == [(3, "router.1")]
    assert np.argwhere(near.real & ~comparison.clean).tolist() == [[1, 3], [1, 4]]


def test_a_wrong_line_of_the_cache_is_named_by_depth_and_slot() -> None:
    case = handmade.case()
    new_loop = case.outputs["new_loop"].copy()
    new_loop[2, 1, 0, 2] += 1
    first = compare(case, handmade.answer(case, new_loop=new_loop), TIGHT).problems[0]
    assert (first.tensor, first.iteration, first.position) == ("new_loop", None, (0, 2))
    assert first.text.startswith("new_loop of depth 3, slot 2 differs")


def test_bands_are_measured_decision_by_decision_until_one_turns() -> None:
    case, eager = changed("router.0", lambda x: (x + 1) % handmade.EXPERTS, first=3)
    errors = {name: np.zeros((handmade.LOOPS, handmade.BATCH, handmade.TOKENS), np.float32) for name in case.margins}
    errors["router.0"][1, 0, 0], errors["router.0"][3, 1, 3] = 0.01, 0.02  # the second is what turned the choice
    errors["router.1"][3, 1, 3] = errors["done"][3, 1, 4] = 9.0  # behind it: another function
    errors["done"][2, 1, 4] = 0.03
    measured = measure([Asked(case, eager, errors)], [compare(case, eager, None)], "fp32")
    floor = measured.band("router.1", 3)
    assert floor < 1e-6
    assert np.allclose(measured.bands["router.0"], [floor, FACTOR * 0.01, FACTOR * 0.01, FACTOR * 0.02])
    assert np.allclose(measured.bands["done"], [floor, floor, FACTOR * 0.03, FACTOR * 0.03])
    assert set(measured.bands) == {"router.0", "router.0 after halting", "router.1", "router.1 after halting", "done"}


def test_a_case_is_cut_by_the_dimensions_of_its_ports() -> None:
    case, answer = changed("s", lambda x: x + 1, first=1)
    small = _cut(case, compare(case, answer, TIGHT).problems[0])
    assert small.inputs["input_ids"].shape == (1, 4) and small.inputs["past_lengths"].shape == (1,)
    assert small.inputs["past_loop"].shape == case.inputs["past_loop"][:, :, :1].shape
    assert int(small.input("max_loops")) == 2 and not small.input("early_exit")
    assert small.outputs["new_loop"].shape[:4] == (handmade.LOOPS, handmade.SLOTS, 1, 4)
    assert small.trace["s"].shape == (2, 1, 4, handmade.WIDTH) and small.margins["done"].shape == (2, 1, 4)
    assert np.array_equal(small.trace["s"], case.trace["s"][:2, 1:2, :4])


def golden() -> Golden:
    case = handmade.case()
    result = CaseResult.of("onnx", compare(case, changed("s", lambda x: x + 1e-9)[1], TIGHT), TIGHT)
    return Golden(case.spec, "fp32", (case,), TIGHT, (result,), (), None)


def test_the_file_of_a_spec_is_not_that_of_another(tmp_path: Path) -> None:
    made = golden()
    save_golden(made, tmp_path / "golden.safetensors")
    again = load_golden(tmp_path / "golden.safetensors", made.spec)
    assert again.eager == made.eager and np.array_equal(again.cases[0].trace["s"], made.cases[0].trace["s"])
    other = dataclasses.replace(made.spec, trace=(*made.spec.trace, dataclasses.replace(made.spec.trace[-1], name="q")))
    with pytest.raises(BundleError, match=r"0\.inside\.q.*export the model again"):
        load_golden(tmp_path / "golden.safetensors", other)


def test_a_file_of_an_older_format_says_to_export_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = golden()
    with monkeypatch.context() as patch:
        patch.setattr(golden_module, "FORMAT", 1)
        save_golden(made, tmp_path / "golden.safetensors")
    with pytest.raises(BundleError, match="it is of format 1, this version reads 3.*export the model again"):
        load_golden(tmp_path / "golden.safetensors", made.spec)


def test_plots_show_what_there_is_and_of_numbered_tensors_the_worst() -> None:
    made = golden()
    stage = StageResult("onnx", "a runner", "model.onnx", made.eager)
    parity = Parity(made.spec, "fp32", made.tolerances, (stage,), (), {4: 9})
    growth = stage.growth(state(made.spec))
    assert growth is not None and (growth.tensor, len(growth.errors)) == ("s", handmade.LOOPS)
    assert "error of s, relative" in growth_plot(parity, [(stage, growth)])
    panels = panels_plot(parity, [stage])
    for title in ("entries.0, the worst of 2", "share.0, the worst of 2", "moved", ">s<"):
        assert title in panels
    assert parity.to_json()["stages"][0]["growth"]["tensor"] == "s"
