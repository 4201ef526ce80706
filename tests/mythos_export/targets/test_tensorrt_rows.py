"""The row graphs for TensorRT: no Loop, tables as inputs, entries in place of caches. None is executed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles, config_of

from mythos_export import export
from mythos_export.errors import TargetError
from mythos_export.kernels import triton_build
from mythos_export.lower import Lowered
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions
from mythos_export.targets.tensorrt_build import Range, row_profile
from mythos_export.targets.tensorrt_rows import graph_of, lower_for_tensorrt, profile_of
from mythos_runtime import read_manifest
from mythos_runtime.cli import mythos
from mythos_runtime.row_ports import ENTER, GRAPHS, PAGE, STEP
from mythos_runtime.tensorrt import missing_plugins


@pytest.fixture
def lowered(bundles: Bundles, tmp_path: Path) -> Lowered:
    folder = shutil.copytree(bundles["mla_prefill"], tmp_path / "bundle")
    paths = lower_for_tensorrt(folder)
    return Lowered(folder / "model.onnx", read_manifest(folder).spec, (), paths)


def test_a_call_returns_the_entries_of_its_rows(lowered: Lowered) -> None:
    """In place of pages, which stay where they are; padding and numbers of no page are not followed."""
    folder = lowered.path.parent
    ports = lowered.spec.graphs[ENTER]
    r = np.random.default_rng(0)
    width = next(group.width for group in lowered.spec.caches if not group.per_loop)
    feeds = {
        "input_ids": r.integers(0, lowered.spec.vocab_size, 4),
        "position": np.array([0, 1, 0, 0]),
        "span": np.array([1, 1, 0, -1]),
        "tables": np.array([[4, 2**40], [2, -7]]),
    }
    feeds |= {
        port.name: r.standard_normal((5, PAGE, width)).astype(port.dtype)
        for port in ports.inputs
        if port.role == "cache"
    }
    plain, ours = (ort.InferenceSession(folder / name) for name in (f"{ENTER}.onnx", graph_of(ENTER)))
    whole = dict(zip([out.name for out in plain.get_outputs()], plain.run(None, feeds), strict=True))
    entries = dict(zip([out.name for out in ours.get_outputs()], ours.run(None, feeds), strict=True))
    assert np.allclose(entries["encoded"][:3], whole["encoded"][:3], atol=1e-5)
    assert {name for name in entries if name != "encoded"} == {
        f"{port.name}_entry" for port in ports.inputs if port.role == "cache"
    }
    for name in (port.name for port in ports.inputs if port.role == "cache"):
        pages, entry = whole[f"{name}_next"], entries[f"{name}_entry"]
        assert np.allclose(entry[:3], [pages[2, 0], pages[2, 1], pages[4, 0]], atol=1e-5)
    graph = onnx.load(folder / graph_of(STEP), load_external_data=False).graph
    assert not {"Loop", "NonZero"} & {node.op_type for node in graph.node}
    assert not {node.domain for node in graph.node} - {""}


def test_a_profile_has_every_size_of_a_call(lowered: Lowered) -> None:
    profile = profile_of(lowered.path.parent / graph_of(STEP), lowered.spec)
    blocks = -(-lowered.spec.max_seq_len // PAGE)
    least, _, most = profile.shapes["tables"]
    assert least == (1, 1) and most[0] == 256 and blocks <= most[1] < 2 * blocks + 1
    with pytest.raises(TargetError, match="'tokens', for which there is no range"):
        row_profile([("x", ("tokens",))], Range(1, 1, 1), Range(1, 1, 1), Range(1, 1, 1))


def test_what_does_not_go_with_the_model_is_refused_before_it_is_captured(lowered: Lowered) -> None:
    target, spec = find_target("tensorrt"), lowered.spec
    target.check_model(spec, TargetOptions("fp32", rows=True))
    without = replace(spec, graphs={name: graph for name, graph in spec.graphs.items() if name not in GRAPHS})
    with pytest.raises(TargetError, match="--rows was asked for, but with its exit rule act .* no row graphs"):
        target.check_model(without, TargetOptions("fp32", rows=True))
    with pytest.raises(TargetError, match=f"--context .* goes beyond the model's max_seq_len of {spec.max_seq_len}"):
        target.check_model(spec, TargetOptions("fp32", context=f"0:8:{spec.max_seq_len + 1}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "precision", "plugins"), [("mla_decode", "fp32", False), ("gqa_decode", "fp16", True)]
)
def test_engines_of_the_row_graphs(case: str, precision: str, plugins: bool, tmp_path: Path) -> None:
    """Parsed, walked layer by layer against the model, built; plug-ins are said to be where they are, in the whole
    model's engine alone."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13")
    if plugins and (lack := triton_build.missing() or missing_plugins()):
        pytest.skip(lack)
    source = GOLDEN / case / "model.safetensors"
    options = {"precision": precision, "sm": "89", "batch": "1:1:2", "tokens": "1:4:16", "context": "0:8:64"}
    exported = export(source, tmp_path / "b", "tensorrt", rows=True, plugins=plugins, **options, **config_of(case))
    states = {stage.name: stage.state for stage in exported.parity.stages}
    assert states["tensorrt row networks"] == "pass"
    manifest = exported.manifest
    target = manifest.target("tensorrt")
    assert target is not None and target.state == "built, not executed"
    described = target.details["row_engines"]
    assert [entry["graph"] for entry in described] == list(GRAPHS)
    for entry in described:
        (engine,) = entry["engines"]
        assert engine["sm"] == [89] and engine["file"] in manifest.files
        content = (exported.path / engine["file"]).read_bytes()
        assert content[:4] == b"vtrt"
        assert not engine["plugins"] and b'{"architectures"' not in content  # as a plug-in's kernels begin
    (whole,) = target.details["engines"]
    assert whole["plugins"] == plugins == (b'{"architectures"' in (exported.path / whole["file"]).read_bytes())
    attention = "mla_attention" if case.startswith("mla") else "gqa_attention"
    in_whole, in_rows = "TensorRT", "TensorRT, row graphs"
    taken = {
        name: {runner: runners[runner]["taken"] for runner in (in_whole, in_rows) if runner in runners}
        for name, runners in manifest.operators.items()
    }
    of_whole = "plug-in with Triton kernels" if plugins else "decomposition"
    both = {in_whole: of_whole, in_rows: "decomposition"}
    assert taken == {
        "mythos::moe": both,
        "mythos::act_halting": both,
        f"mythos::{attention}": {in_whole: of_whole},
        f"mythos::paged_{attention}": {in_rows: "decomposition"},
    }
    shown = CliRunner().invoke(mythos, ["inspect", str(exported.path)], env={"COLUMNS": "200"})
    lines = [line for line in shown.output.splitlines() if in_rows in line]
    assert shown.exit_code == 0 and len(lines) == 1 and "decomposition" in lines[0] and "plug-in" not in lines[0]
    assert ("in the whole model's engine alone" in " ".join(shown.output.split())) == plugins
