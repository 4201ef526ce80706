"""Stages that fail: where a defect is located, what is kept of it, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import defects
import numpy as np
import onnx
import pytest
import torch

from mythos_export.verify import run
from mythos_export.verify.align import align, kind
from mythos_export.verify.golden import Golden
from mythos_export.verify.page import write_reports
from mythos_export.verify.parity import Parity
from mythos_export.verify.reproduction import replay
from mythos_export.verify.stages import Bundle
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.program import Program
from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime import read_manifest
from mythos_runtime.program import load_program


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


def test_a_call_that_fails_is_a_failed_stage(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    folder = defects.defective(bundle, tmp_path / "bundle", defects.limit_off_by_one)
    parity = run.verify_bundle(folder, read_manifest(folder), threads=1, reproductions=tmp_path / "repro")
    (failure,) = parity.failures
    assert failure.problem.tensor in ("outputs", "loops")
    json.dumps(parity.to_json(), allow_nan=False)


def test_a_reproduction_that_cannot_be_saved_does_not_hide_the_failure(
    bundle: Path, tmp_path: Path, only_onnx: None
) -> None:
    folder = defects.defective(bundle, tmp_path / "bad", defects.missing_shared_expert)
    (tmp_path / "repro" / "onnx").mkdir(parents=True)  # no reproduction
    parity = run.verify_bundle(folder, read_manifest(folder), threads=1, reproductions=tmp_path / "repro")
    (failure,) = parity.failures
    assert failure.problem.tensor == "h" and failure.operator is not None and failure.reproduction is None
    assert failure.note is not None and "is in the way" in failure.note and failure.note in parity.verdict()


def test_the_page_stands_alone_and_the_json_is_json(bundle: Path, tmp_path: Path, only_onnx: None) -> None:
    manifest = read_manifest(bundle)
    parity: Parity = run.verify_bundle(bundle, manifest, threads=1)
    write_reports(tmp_path, parity, manifest)
    page = (tmp_path / "parity.html").read_text()
    assert page.count("<svg") == 3 and "<script" not in page
    links = {link for link in re.findall(r'(?:src|href)="([^"]*)', page) if not link.startswith("#")}
    assert links == {"parity.json"}, "only the figures behind it"
    document = json.loads((tmp_path / "parity.json").read_text(), parse_constant=pytest.fail)
    assert document["verdict"] == "pass" and document["stages"][0]["name"] == "eager"
    assert {"reports/parity.html", "reports/parity.json"} <= manifest.files.keys()
