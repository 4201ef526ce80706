"""Verification from the command line and in its parts: tolerances, near ties, fresh cases, reproductions, the page."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import defects
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles
from safetensors.torch import save_file

from mythos_export.cli import export_command, mythos
from mythos_export.verify import run
from mythos_export.verify.align import align, kind
from mythos_export.verify.compare import compare
from mythos_export.verify.golden import GOLDEN as GOLDEN_FILE
from mythos_export.verify.golden import Golden, load_golden, make_golden, make_random, save_golden
from mythos_export.verify.growth import fit
from mythos_export.verify.page import write_reports
from mythos_export.verify.parity import Parity
from mythos_export.verify.reproduction import ABOUT, replay
from mythos_export.verify.stages import Bundle
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.program import Program
from mythos_export.verify.tolerances import EPSILON, FACTOR
from mythos_export.verify.trace import Answer, Trace, names
from mythos_export.verify.twin import body_of, loop_of
from mythos_model import MythosModel, load_checkpoint
from mythos_runtime import read_manifest
from mythos_runtime.program import load_program

CHECKPOINT = GOLDEN / "training_checkpoint" / "step_0000010.pt"


def true_answer(golden: Golden, index: int) -> Answer:
    case = golden.cases[index]
    return Answer(dict(case.outputs), case.trace)


def with_trace(answer: Answer, **arrays: np.ndarray) -> Answer:
    assert answer.trace is not None
    return Answer(answer.outputs, Trace({**answer.trace.arrays, **arrays}))


def test_the_truth_agrees_with_itself(golden: Golden) -> None:
    for index, case in enumerate(golden.cases):
        comparison = compare(case, true_answer(golden, index), golden.tolerances)
        assert not comparison.problems and not comparison.near_ties
        assert all(error == 0 for series in comparison.errors.values() for error in series)
        assert np.array_equal(comparison.clean, case.real)


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


def test_a_turned_decision_is_a_near_tie_only_within_the_band(golden: Golden) -> None:
    case, answer = golden.cases[0], true_answer(golden, 0)
    halted = case.trace["halted"].copy()
    halted[0, 0, 4] ^= True
    turned = with_trace(answer, halted=halted)
    for margin, problems, ties in ((1e-9, 0, 1), (0.2, 1, 0)):
        margins = case.margins["halted"].copy()
        margins[0, 0, 4] = margin
        near = dataclasses.replace(case, margins={**case.margins, "halted": margins})
        comparison = compare(near, turned, golden.tolerances)
        assert len(comparison.problems) == problems and len(comparison.near_ties) == ties
        # That position and those that attend to it are left out, and no others.
        left_out = case.real & ~comparison.clean
        assert np.argwhere(left_out).tolist() == [[0, token] for token in range(4, case.real.shape[1])]
    assert comparison.problems[0].tensor == "halted" and comparison.problems[0].position == (0, 4)


@pytest.mark.parametrize("tensor", ["entries", "weights", "h", "cumulative", "out"])
def test_the_first_wrong_tensor_is_the_one_that_is_named(golden: Golden, tensor: str) -> None:
    index = next(i for i, case in enumerate(golden.cases) if case.name == "one token each")
    answer = true_answer(golden, index)
    assert answer.trace is not None
    order = names(golden.spec)
    later = order[order.index(tensor) :]
    wrong = {name: answer.trace[name].copy() for name in later if name not in ("experts", "depth", "halted")}
    for array in wrong.values():
        array[2:] *= 1.01
    first = compare(golden.cases[index], with_trace(answer, **wrong), golden.tolerances).problems[0]
    assert (first.tensor, first.iteration) == (tensor, 3)


def test_experts_may_come_in_any_order_with_their_weights(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    trace = case.trace
    flipped = with_trace(answer, experts=trace["experts"][..., ::-1], weights=trace["weights"][..., ::-1])
    assert not compare(case, flipped, golden.tolerances).problems
    without = with_trace(answer, experts=trace["experts"][..., ::-1])
    assert compare(case, without, golden.tolerances).problems[0].tensor == "weights"


def test_an_expert_that_is_chosen_twice_is_wrong_at_an_exact_tie_too(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    experts, margins = case.trace["experts"].copy(), case.margins["experts"].copy()
    margins[0, 0, 0] = 0.0
    tied = dataclasses.replace(case, margins={**case.margins, "experts": margins})
    other = next(expert for expert in range(99) if expert not in experts[0, 0, 0])
    experts[0, 0, 0, 1] = other
    assert not compare(tied, with_trace(answer, experts=experts), golden.tolerances).problems
    experts[0, 0, 0, 1] = experts[0, 0, 0, 0]
    first = compare(tied, with_trace(answer, experts=experts), golden.tolerances).problems[0]
    assert (first.tensor, first.iteration, first.position) == ("experts", 1, (0, 0))
    assert "one is chosen twice" in first.text


def test_nan_never_passes(golden: Golden) -> None:
    answer = true_answer(golden, 0)
    logits = golden.cases[0].outputs["logits"].copy()
    logits[0, 2, 3] = np.nan
    problem = compare(golden.cases[0], Answer({**answer.outputs, "logits": logits}, answer.trace), None).problems[0]
    assert problem.tensor == "logits" and problem.position == (0, 2)
    assert "NaN" in problem.text


def test_other_shapes_are_wrong_even_where_numpy_would_broadcast(golden: Golden) -> None:
    case, answer = golden.cases[1], true_answer(golden, 1)
    logits = case.outputs["logits"][:1]
    first = compare(case, Answer({**answer.outputs, "logits": logits}, answer.trace), golden.tolerances).problems[0]
    assert first.tensor == "logits" and "has shape" in first.text
    thin = with_trace(answer, h=case.trace["h"][..., :1])
    first = compare(case, thin, golden.tolerances).problems[0]
    assert (first.tensor, first.iteration) == ("h", 1)


def test_without_a_look_inside_what_may_have_turned_is_left_out(golden: Golden) -> None:
    case = golden.cases[0]
    margins = case.margins["experts"].copy()
    margins[0, 0, 5] = 1e-9
    near = dataclasses.replace(case, margins={**case.margins, "experts": margins})
    comparison = compare(near, Answer(case.outputs), golden.tolerances)
    assert not comparison.problems and len(comparison.near_ties) == 1
    assert not comparison.clean[0, 5:].any() and comparison.clean[0, :5].all()


def test_growth_is_fitted() -> None:
    assert fit("h", "case", [1e-6 * 1.5**n for n in range(8)]).factor == pytest.approx(1.5)
    assert fit("h", "case", [0.0, 1e-6, math.inf]).factor is None


def test_nodes_of_the_graph_are_paired_with_those_of_the_program(bundle: Path, golden: Golden) -> None:
    """Wrong pairs would name a wrong operator: on a sound graph, everything that is paired has the same value."""
    manifest = read_manifest(bundle)
    opened = Bundle(bundle, manifest, 1)
    stage, program = FunctionBodies.open(opened), Program.open(opened)
    inputs = next(case.inputs for case in golden.cases if case.name == "chunk")
    found, expected = stage.values(inputs, [1])[0], program.values(inputs, [1])[0]
    body = body_of(loop_of(onnx.load(bundle / "model.onnx", load_external_data=False).graph))
    pairs = align(body.node, program.graphs()[1])
    assert {"moe", "MatMul", "RMSNormalization", "Softmax", "ScatterND"} <= {kind(node) for node in pairs.values()}
    compared = 0
    for name, node in pairs.items():
        if name in found.inside and found.inside[name].shape == expected.inside[node.name].shape:
            theirs = expected.inside[node.name]
            assert np.allclose(found.inside[name], theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max(initial=1e-9))
            compared += 1
    assert compared >= 40


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


def test_a_defect_in_the_program_is_its_own_stage(
    bundle: Path, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state is not decayed: a missing factor in the captured body, in memory only."""
    program = load_program(bundle / "model.pt2")
    stage = Program(program, golden.spec)
    body = stage.graphs()[1]
    decay = next(node for node in body.nodes if str(node.target) == "aten.mul.Tensor" and _is_decay(node))
    decay.replace_all_uses_with(decay.args[1])
    for module in stage.module.modules():
        if getattr(module, "graph", None) is body:
            module.recompile()
    monkeypatch.setattr(Program, "open", classmethod(lambda cls, opened: stage))
    monkeypatch.setattr(run, "STAGES", (Program, FunctionBodies))
    parity = run.verify_bundle(bundle, read_manifest(bundle), threads=1, golden=golden, reproductions=tmp_path)
    (failure,) = parity.failures
    assert (failure.stage, failure.problem.tensor, failure.problem.iteration) == ("program", "h", 1)
    assert failure.operator is not None and failure.operator.startswith("add(")
    assert failure.reproduction is not None
    monkeypatch.undo()
    replayed = replay(Path(failure.reproduction), threads=1)  # the file is sound, and with all that it needs
    assert replayed.problem is None


def _is_decay(node: torch.fx.Node) -> bool:
    first = node.args[0]
    return isinstance(first, torch.fx.Node) and first.name.startswith("exp")


def defective(bundle: Path, folder: Path, defect: defects.Defect) -> Path:
    """A copy of a bundle with a defect, whose manifest vouches for it."""
    from mythos_runtime.files import describe
    from mythos_runtime.manifest import write_manifest

    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    defect(model)
    onnx.save(model, folder / "model.onnx")
    manifest = read_manifest(bundle)
    files = {**manifest.files, "model.onnx": describe(folder / "model.onnx")}
    write_manifest(folder, dataclasses.replace(manifest, files=files))
    return folder


def test_a_call_that_fails_is_a_failed_stage(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    folder = defective(bundle, tmp_path / "bundle", defects.limit_off_by_one)
    parity = run.verify_bundle(folder, read_manifest(folder), threads=1, reproductions=tmp_path / "repro")
    (failure,) = parity.failures
    assert failure.problem.tensor in ("outputs", "loops")
    json.dumps(parity.to_json(), allow_nan=False)


def test_the_command_line_finds_saves_and_replays_a_failure(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_onnx: None
) -> None:
    folder = defective(bundle, tmp_path / "bad", defects.missing_shared_expert)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(mythos, ["verify", str(folder), "--json", "--threads", "1", "--report", "page"])
    assert result.exit_code == 1
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["verdict"] == "fail"
    (failure,) = document["failures"]
    assert (failure["stage"], failure["tensor"], failure["iteration"]) == ("onnx", "h", 1)
    assert "mythos::moe" in failure["operator"]
    assert failure["error"] > failure["tolerance"] > 0
    assert f"mythos verify --repro {tmp_path / 'bad.repro'}" in result.stderr.replace("\n", "")
    about = json.loads((tmp_path / "bad.repro" / "onnx" / ABOUT).read_text())
    assert about["tensor"] == "h"
    small = load_golden(tmp_path / "bad.repro" / "onnx" / GOLDEN_FILE, read_manifest(bundle).spec).cases[0]
    assert small.inputs["input_ids"].shape[0] == 1 and int(small.inputs["max_loops"]) == 1
    page = (tmp_path / "page" / "parity.html").read_text()
    assert "What is wrong" in page and "mythos::moe" in page

    replayed = CliRunner().invoke(mythos, ["verify", "--repro", "bad.repro/onnx", "--json"])
    assert replayed.exit_code == 1
    assert json.loads(replayed.stdout.splitlines()[-1])["verdict"] == "fail"
    shutil.copy(bundle / "model.onnx", tmp_path / "bad.repro" / "onnx" / "model.onnx")
    changed = CliRunner().invoke(mythos, ["verify", "--repro", "bad.repro/onnx"])
    assert changed.exit_code == 2 and "model.onnx" in changed.stderr  # it is held to its hashes


@pytest.mark.parametrize(
    ("defect", "tensor"),
    [(defects.one_iteration_more, "loops"), (defects.limit_off_by_one, None), (defects.unknown_operator, "graph")],
)
def test_the_command_line_shows_failures_that_have_no_error(
    defect: defects.Defect, tensor: str | None, bundles: Bundles, tmp_path: Path, only_onnx: None
) -> None:
    folder = defective(bundles["mla_prefill"], tmp_path / "bad", defect)
    report = tmp_path / "new" / "page"
    result = CliRunner().invoke(mythos, ["verify", str(folder), "--json", "--threads", "1", "--report", str(report)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.stderr
    (failure,) = json.loads(result.stdout.splitlines()[-1])["failures"]
    assert failure["tensor"] == tensor or (tensor is None and failure["tensor"] in ("outputs", "loops"))
    assert failure["error"] is None and failure["tolerance"] is None and failure["note"] is None
    assert (tmp_path / "bad.repro" / "onnx").is_dir() == (tensor != "graph")  # beside the bundle, wherever this runs
    assert (report / "parity.html").is_file() and (report / "parity.json").is_file()


def test_a_reproduction_that_cannot_be_saved_does_not_hide_the_failure(
    bundle: Path, tmp_path: Path, only_onnx: None
) -> None:
    folder = defective(bundle, tmp_path / "bad", defects.missing_shared_expert)
    (tmp_path / "repro" / "onnx").mkdir(parents=True)  # no reproduction
    parity = run.verify_bundle(folder, read_manifest(folder), threads=1, reproductions=tmp_path / "repro")
    (failure,) = parity.failures
    assert failure.problem.tensor == "h" and failure.operator is not None and failure.reproduction is None
    assert failure.note is not None and "is in the way" in failure.note and failure.note in parity.verdict()


def test_verify_against_the_checkpoint(bundle: Path, golden: Golden, only_onnx: None) -> None:
    arguments = ["verify", str(bundle), "--against", str(CHECKPOINT), "--cases", "5", "--json", "--threads", "1"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["verdict"] == "pass"
    stage = document["stages"][1]
    assert {"name", "state", "worst_case", "worst_tensor", "error", "tolerance"} <= stage.keys()
    assert stage["cases"] == len(golden.cases) + 5 and stage["error"] <= stage["tolerance"]
    assert document["near_ties"]["total"] == len(document["near_ties"]["listed"])


def test_verify_against_weights_that_bring_no_configuration(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    state = {name: tensor.clone() for name, tensor in load_checkpoint(CHECKPOINT).state.items()}
    weights = tmp_path / "weights.safetensors"
    save_file(state, weights)
    arguments = ["verify", str(bundle), "--against", str(weights), "--cases", "2", "--seed", "5", "--threads", "1"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    assert "is not the file that the bundle was made from" in " ".join(result.stderr.split())


def test_wrong_requests_of_verify_are_exit_code_2(bundle: Path, bundles: Bundles, tmp_path: Path) -> None:
    other = GOLDEN / "hops" / "step_0001794.pt"
    (tmp_path / "cases.safetensors").write_bytes(b"no")
    for command, arguments, words in (
        (mythos, ["verify"], "give a BUNDLE, or --repro"),
        (mythos, ["verify", str(bundle), "--cases", "3"], "--cases needs --against"),
        (mythos, ["verify", str(bundle), "--seed", "3"], "--seed needs --against"),
        (mythos, ["verify", str(bundle), "--config", "x"], "--config needs --against"),
        (mythos, ["verify", "--repro", "x", "--report", "y"], "--report goes with a BUNDLE"),
        (mythos, ["verify", str(bundle), "--report", str(bundle / "reports")], "belongs to the bundle"),
        (mythos, ["verify", str(bundle), "--against", str(other)], "is another model than the bundle"),
        (mythos, ["verify", "--repro", str(tmp_path)], "manifest.json"),
        (mythos, ["verify", "--repro", str(bundle)], "holds no reproduction"),
        (
            export_command,
            [str(CHECKPOINT), "-o", str(tmp_path / "b"), "--cases", str(tmp_path / "cases.safetensors")],
            "gives no cases",
        ),
    ):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.stderr.replace("\n", " ").replace("  ", " "), (arguments, result.stderr)


def test_the_page_stands_alone_and_the_json_is_json(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    manifest = read_manifest(bundle)
    parity: Parity = run.verify_bundle(bundle, manifest, threads=1)
    write_reports(tmp_path, parity, manifest)
    page = (tmp_path / "parity.html").read_text()
    assert page.count("<svg") == 3 and "<script" not in page
    links = {link for link in re.findall(r'(?:src|href)="([^"]*)', page) if not link.startswith("#")}
    assert links == {"parity.json", "latency.html"}, "only the figures behind it, and the page beside it"
    document = json.loads((tmp_path / "parity.json").read_text(), parse_constant=pytest.fail)
    assert document["verdict"] == "pass" and document["stages"][0]["name"] == "eager"
    assert {"reports/parity.html", "reports/parity.json"} <= manifest.files.keys()
