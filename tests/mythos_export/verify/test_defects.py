"""Planted defects: each has to be caught, and its stage, tensor and operator named."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import defects
import numpy as np
import onnx
import pytest
from golden_bundles import Bundles

from mythos_export.errors import ParityError
from mythos_export.verify import locate, run
from mythos_export.verify.golden import GOLDEN, load_golden
from mythos_export.verify.parity import Parity
from mythos_export.verify.reproduction import replay
from mythos_export.verify.stages import Bundle, Stage
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.program import Program
from mythos_export.verify.stages.row_loops import RowLoops
from mythos_export.verify.stages.rows import RowBodies
from mythos_runtime import read_manifest
from mythos_runtime.op_library import find_op_library
from mythos_runtime.program import load_program


@pytest.fixture(autouse=True)
def program(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """The captured program is never planted into here, and is slow to load: once is enough."""
    sound = bundles["mla_prefill"]  # exported by what is not replaced yet
    monkeypatch.setattr(locate.Program, "open", lambda bundle: program_of(sound))


@functools.cache
def program_of(bundle: Path) -> Program:
    return Program(load_program(bundle / "model.pt2"), read_manifest(bundle).spec)


@pytest.fixture
def planted(bundles: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Verify a copy of a bundle with a defect in its graph, by some stages only."""

    def verify(
        defect: defects.Defect, file: str = "model.onnx", stages: tuple[type[Stage], ...] = (FunctionBodies,)
    ) -> Parity:
        monkeypatch.setattr(run, "STAGES", stages)
        folder = shutil.copytree(bundles["mla_prefill"], tmp_path / "bundle")
        model = onnx.load(folder / file, load_external_data=False)
        defect(model)
        onnx.save(model, folder / file)
        manifest = read_manifest(bundles["mla_prefill"])
        return run.verify_bundle(folder, manifest, threads=1, reproductions=tmp_path / "repro")

    return verify


@pytest.mark.parametrize(
    ("defect", "tensor", "operator"),
    [
        (defects.one_iteration_more, "loops", "And"),
        (defects.swapped_gate_and_up, "h", "mythos::moe"),
        (defects.missing_shared_expert, "h", "mythos::moe"),
        (defects.position_off_by_one, "new_layers", "Mul"),  # position x frequency
        (defects.wrong_expert_order, "h", "mythos::moe"),
        (defects.half_precision_overflow, "h", "Add"),
        (defects.accumulated_remainder, "cumulative", "mythos::act_halting"),
        (defects.read_of_the_wrong_depth, "experts", "mythos::mla_attention"),
        (defects.row_of_the_wrong_depth, "new_loop", "ScatterND"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_defect_is_caught_and_located(planted, defect, tensor: str, operator: str) -> None:  # type: ignore[no-untyped-def]
    parity = planted(defect)
    (failure,) = parity.failures
    assert failure.stage == "onnx"
    assert failure.problem.tensor == tensor
    assert failure.operator is not None and operator in failure.operator
    with pytest.raises(ParityError, match=f"stage onnx .*tensor {tensor}"):
        parity.raise_unless_passed()
    assert failure.reproduction is not None
    replayed = replay(Path(failure.reproduction), threads=1)
    assert replayed.problem is not None and replayed.problem.tensor == tensor


@pytest.mark.parametrize(
    ("defect", "tensor", "operator"),
    [
        (defects.halting_above_the_threshold, "halted", "mythos::act_halting"),
        (defects.past_one_key_longer, "new_layers", "mythos::mla_attention"),
        (defects.blind_to_itself, "new_layers", "mythos::mla_attention"),
        (defects.padding_as_key, "new_layers", "mythos::mla_attention"),
        (defects.stale_memory_behind_the_past, "new_layers", "mythos::mla_attention"),
        (defects.output_of_padding, "depth", "Where"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_defect_that_few_inputs_show_is_caught_and_located(planted, defect, tensor: str, operator: str) -> None:  # type: ignore[no-untyped-def]
    (failure,) = planted(defect).failures
    assert failure.problem.tensor == tensor, failure
    assert failure.operator is not None and operator in failure.operator, failure


@pytest.mark.parametrize(
    ("file", "defect", "tensor", "operator"),
    [
        ("enter.onnx", defects.row_position_off_by_one, "new_layers", "RotaryEmbedding"),
        ("step.onnx", defects.swapped_gate_and_up, "h", "mythos::moe"),
        ("step.onnx", defects.code_of_the_next_loop, "entries", "Add"),
        ("leave.onnx", defects.cache_of_another_layer, "new_layers", "mythos::paged_mla_attention"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_defect_in_a_row_graph_is_caught_located_and_replayed(  # type: ignore[no-untyped-def]
    planted, file: str, defect, tensor: str, operator: str
) -> None:
    (failure,) = planted(defect, file, (RowBodies,)).failures
    assert (failure.stage, failure.problem.tensor) == ("rows", tensor)
    assert failure.operator is not None and operator in failure.operator, failure
    assert failure.reproduction is not None
    replayed = replay(Path(failure.reproduction), threads=1)
    assert replayed.problem is not None and replayed.problem.tensor == tensor


@pytest.mark.skipif(find_op_library() is None, reason="the native operators are not built: make native")
@pytest.mark.parametrize(
    "defect",
    [
        defects.tables_of_the_first_loop,
        defects.depth_of_the_first_loop,
        defects.stops_of_nobody,
        defects.spared_in_every_loop,
    ],
    ids=lambda value: value.__name__,
)
def test_a_defect_of_the_step_in_a_loop_is_caught(planted, defect) -> None:  # type: ignore[no-untyped-def]
    """It is held to the step, which is looked at from inside."""
    (failure,) = planted(defect, "loops.onnx", (RowLoops,)).failures
    assert failure.stage == "rows, looped"
    assert "loops.onnx computes another" in failure.problem.text and "than step.onnx" in failure.problem.text


def test_rows_are_paired_with_the_same_values_of_the_portable_graph(bundles: Bundles) -> None:
    bundle = Bundle(bundles["mla_prefill"], read_manifest(bundles["mla_prefill"]), 1)
    golden = load_golden(bundle.folder / GOLDEN, bundle.spec)
    case = next(case for case in golden.cases if case.name == "chunk")
    found = RowBodies.open(bundle).values(case.inputs, [1])[0]
    expected = next(locate._references(RowBodies.open(bundle), bundle, case, [1]))[0]
    compared = 0
    for part in ("inside", "around", "behind"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert ours is not None and theirs is not None
        for name in ours.keys() & theirs.keys():
            if ours[name].shape == theirs[name].shape:
                assert np.allclose(ours[name], theirs[name], atol=1e-4 * np.abs(theirs[name]).max(initial=1e-9)), name
                compared += 1
    assert compared >= 60
