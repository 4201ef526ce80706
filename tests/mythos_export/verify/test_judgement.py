"""What a verification makes of its stages: which were not run, which fail, and when the whole does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mythos_export.verify import parity as parity_module
from mythos_export.verify import run
from mythos_export.verify.compare import compare
from mythos_export.verify.generation import generate
from mythos_export.verify.golden import Golden, make_golden
from mythos_export.verify.judgement import problems
from mythos_export.verify.parity import Parity
from mythos_export.verify.results import StageResult
from mythos_export.verify.stages import Bundle, onnxruntime, program, reference
from mythos_export.verify.stages.onnxruntime import CpuKernels, FunctionBodies
from mythos_export.verify.stages.program import Program
from mythos_export.verify.stages.reference import Reference
from mythos_export.verify.tolerances import Tolerances
from mythos_model import MythosModel, load_checkpoint
from mythos_model.pretrained import folder
from mythos_runtime import read_manifest
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError
from mythos_runtime.program import load_program


def test_what_a_runner_raises_is_a_failed_stage_or_one_that_was_not_run(
    bundle: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch, only_onnx: None
) -> None:
    states = {}
    for error in (BackendMissing("no library"), BundleError("no file"), BackendFailed("no memory")):

        def fail(opened: Bundle, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(FunctionBodies, "open", fail)
        stage = run.verify_bundle(bundle, read_manifest(bundle), golden=golden).stages[1]
        states[type(error)] = (stage.state, stage.reason, stage.failure and stage.failure.problem.tensor)
    assert states == {
        BackendMissing: ("not run", "no library", None),
        BundleError: ("fail", None, "graph"),
        BackendFailed: ("fail", None, "graph"),
    }
    program = Program(load_program(bundle / "model.pt2"), golden.spec, 1)
    with pytest.raises(BackendFailed, match="PyTorch: "):
        program.outputs({**golden.cases[0].inputs, "positions": np.zeros((1, 3), np.int64)})


def test_a_mistake_of_ours_is_a_traceback_and_no_verdict(
    bundle: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what surrounds a runner, not of the runner: no stage may call its artifact wrong for it."""
    one = dataclasses.replace(golden, cases=golden.cases[:1])
    for kind, module, name, mistake in (
        (FunctionBodies, onnxruntime, "make_twin", AttributeError),
        (Program, program, "to_torch", TypeError),
        (Reference, reference, "make_twin", AssertionError),
    ):

        def wrong(*arguments: object, mistake: type[Exception] = mistake) -> None:
            raise mistake("of ours")

        monkeypatch.setattr(run, "STAGES", (kind,))
        with monkeypatch.context() as patch, pytest.raises(mistake, match="of ours"):
            patch.setattr(module, name, wrong)
            run.verify_bundle(bundle, read_manifest(bundle), threads=1, golden=one)


def test_the_reference_evaluator_takes_a_loop_that_never_runs(bundle: Path, golden: Golden) -> None:
    manifest = read_manifest(bundle)
    stage = Reference.open(Bundle(bundle, manifest, 1))
    case = next(case for case in golden.cases if case.name == "no loops")
    answer = stage.answer(case.inputs)
    assert answer.trace is not None and len(answer.trace) == 0
    assert not compare(case, answer, golden.tolerances).problems


def test_a_missing_operator_library_is_a_stage_that_was_not_run(
    bundle: Path, golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STAGES", (CpuKernels,))
    few = dataclasses.replace(golden, cases=golden.cases[:1])
    for value, words in (("none", "MYTHOS_OP_LIBRARY is none"), (str(tmp_path / "absent.so"), "does not exist")):
        monkeypatch.setenv("MYTHOS_OP_LIBRARY", value)
        stage = run.verify_bundle(bundle, read_manifest(bundle), threads=1, golden=few).stages[1]
        assert stage.state == "not run" and stage.reason is not None and words in stage.reason


def test_the_demo_s_questions_are_not_too_deep_for_fp16() -> None:
    """As `make demo` exports them: halted positions' states drift far apart, those that still run do not."""
    loaded = load_checkpoint(folder("hops"))
    model = MythosModel.from_state(loaded.config, loaded.state, torch.float16)
    deep = make_golden(model, "fp16", folder("hops") / "held_out.safetensors")
    assert max(int(case.output("loops")) for case in deep.cases) > loaded.config.max_loop_iters
    assert not problems(deep, [])


def test_too_much_unseen_in_one_stage_and_too_coarse_a_precision_are_failures(
    bundle: Path, golden: Golden, only_onnx: None
) -> None:
    tolerances = golden.tolerances
    coarse = dataclasses.replace(tolerances, tensors={**tolerances.tensors, "logits": (0.6,)})
    parity = run.verify_bundle(
        bundle, read_manifest(bundle), threads=1, golden=dataclasses.replace(golden, tolerances=coarse)
    )
    assert not parity.passed and "fp32 is too coarse for this model" in parity.verdict()
    eager = run._eager(golden)
    blind = [dataclasses.replace(result, compared=0) for result in golden.eager]
    unseen = dataclasses.replace(eager, name="onnx", results=tuple(blind))
    assert problems(golden, [eager]) == []
    assert "in stage onnx" in problems(golden, [eager, unseen])[0]


def test_a_pass_says_how_much_it_rests_on(golden: Golden) -> None:
    """Positions that were not judged and what is allowed stand in the verdict's own words, and where that is little,
    so does that."""
    eager = run._eager(golden)
    first, *rest = golden.eager
    few = (dataclasses.replace(first, compared=first.positions - 1), *rest)
    many = tuple(dataclasses.replace(result, compared=result.positions // 2 + 1) for result in golden.eager)
    positions = sum(result.positions for result in golden.eager)
    named = {"a": golden.eager, "b": few, "c": many}
    whole, some, most = (dataclasses.replace(eager, name=name, results=results) for name, results in named.items())
    coarse = dataclasses.replace(golden.tolerances, tensors={**golden.tolerances.tensors, "out": (0.01, 0.2)})

    def verdict(*stages: StageResult, tolerances: Tolerances = golden.tolerances) -> str:
        parity = Parity(golden.spec, "fp32", tolerances, (eager, *stages), (), {})
        assert parity.passed
        assert parity.to_json()["basis"]["left_out"] == parity.basis.left_out
        assert bool(parity.to_json()["basis"]["weak"]) == ("weak" in parity.verdict())
        return parity.verdict()

    assert "Every position was judged" in verdict(whole) and "weak" not in verdict(whole)
    assert f" 1 of {positions} positions" in verdict(whole, some) and "in stage b" in verdict(whole, some)
    assert "weak" not in verdict(whole, some)
    assert "in stage c" in verdict(some, most, whole) and "more than 10% of the positions" in verdict(some, most, whole)
    loose = verdict(whole, tolerances=coarse)
    assert "at most 2.0e-01 of a tensor's scale (out)" in loose and "more than 10% of a tensor's scale" in loose
    assert "nothing that was exported was run" in verdict()  # eager is what made the measure


def test_generation_may_leave_the_text_after_a_near_tie(golden: Golden) -> None:
    spec, text = golden.spec, golden.text
    assert text is not None and len(text.ties) == len(text.tokens)
    logits = np.zeros((1, 1, spec.vocab_size), np.float32)
    other = next(token for token in range(spec.vocab_size) if token != text.tokens[0])
    logits[..., other] = 1

    def call(inputs):  # type: ignore[no-untyped-def]
        tokens = inputs["input_ids"].shape[1]
        empty = {name: inputs[f"past_{name[4:]}"][:, :, :tokens] for name in ("new_layers", "new_loop")}
        return {"logits": logits, **empty}

    sure = dataclasses.replace(text, margins=(1.0,) * len(text.tokens), ties=(False,) * len(text.tokens))
    assert generate(call, sure, spec, golden.tolerances).wrong
    near = dataclasses.replace(sure, ties=(True, *sure.ties[1:]))
    assert not generate(call, near, spec, golden.tolerances).wrong


def test_the_schema_in_words_has_the_keys_of_the_document(golden: Golden) -> None:
    document = Parity(golden.spec, "fp32", golden.tolerances, (run._eager(golden),), (), {}, golden.text).to_json()
    described = str(parity_module.__doc__)
    for level, keys in ((4, document.keys()), (6, document["stages"][0].keys())):
        lines = re.findall(rf"^ {{{level}}}(\w[\w, ]*?)(?:  |$)", described, re.MULTILINE)
        assert sorted(name for line in lines for name in re.findall(r"\w+", line)) == sorted({*keys})
