"""Bundles that are damaged are refused in Python's words; of engines that cannot run here, what is missing is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from cpp_programs import ROOT, RUN, cpp, needs_cpp
from golden_bundles import Bundles
from onnx import helper

from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime import BundleError, load
from mythos_runtime.cli import mythos
from mythos_runtime.errors import RuntimeBundleError
from mythos_runtime.files import describe
from mythos_runtime.op_library import find_op_library

pytestmark = needs_cpp


def test_damaged_bundles_are_refused_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    def edit(old: str, new: str) -> Any:
        return lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace(old, new, 1)
        )

    damages: dict[str, Any] = {
        "cut off": lambda folder: (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1]),
        "changed": lambda folder: flip(folder / "model.onnx"),
        "weights changed": lambda folder: flip(folder / "weights.safetensors"),
        "missing": lambda folder: (folder / "weights.safetensors").unlink(),
        "not needed, and changed": lambda folder: flip(folder / "reports" / "parity.json"),
        "a folder": lambda folder: (
            (folder / "golden.safetensors").unlink(),
            (folder / "golden.safetensors").mkdir(),
        ),
        "a link out": lambda folder: (
            (folder / "golden.safetensors").unlink(),
            (folder / "golden.safetensors").symlink_to(ROOT / "README.md"),
        ),
        "no manifest": lambda folder: (folder / "manifest.json").unlink(),
        "too large": lambda folder: (folder / "manifest.json").write_bytes(b" " * (5 << 20)),
        "path leaves": edit('"model.onnx"', '"../model.onnx"'),
        "older": edit('_version": 2', '_version": 1'),
        "newer": edit('_version": 2', '_version": 99'),
        "another cache": edit('"width": ', '"width": 1'),
        "another order": edit('"positions"', '"input_ids"'),
        "repeated": edit('"family"', '"vocab_size": 1, "family"'),
        "the manifest promises more than the graph": larger_vocabulary,
        "a shape larger than its file": larger_weight,
        "no such bundle": lambda folder: shutil.rmtree(folder),
    }
    for name, damage in damages.items():
        folder = tmp_path / "bundle"
        shutil.copytree(bundles["mla_decode"], folder)
        damage(folder)
        with pytest.raises(BundleError) as refused:
            load(folder, engine="python")
        result = cpp(RUN, folder, "--ids", "1")
        assert (result.returncode, result.stderr) == (2, f"error: {refused.value}\n"), name
        shutil.rmtree(folder, ignore_errors=True)


def test_a_folder_that_cannot_be_looked_into_is_refused_in_python_s_words(tmp_path: Path) -> None:
    secret, loop = tmp_path / "secret", tmp_path / "loop"
    secret.mkdir(0)
    loop.symlink_to(loop)
    # Root may look into everything; the others are errors of anybody's.
    for folder in (*([secret] if os.geteuid() else []), loop, tmp_path / ("long" * 100), tmp_path / "none"):
        refused = CliRunner().invoke(mythos, ["inspect", str(folder)])
        result = cpp(RUN, folder, "--ids", "1")
        assert (result.returncode, result.stderr) == (2, refused.stderr), folder
        assert refused.exit_code == 2 and refused.stderr.startswith("error: "), refused.output
        assert ("cannot read" in refused.stderr) == (folder.name != "none")


def test_what_is_not_needed_to_run_may_be_missing(bundles: Bundles, tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["mla_decode"], tmp_path / "bundle")
    for name in ("golden.safetensors", "model.pt2", "card.md"):
        (folder / name).unlink()
    shutil.rmtree(folder / "reports")
    runs = [cpp(RUN, each, "--ids", "1,2", "--max-new-tokens", "3") for each in (bundles["mla_decode"], folder)]
    assert [run.returncode for run in runs] == [0, 0], runs[1].stderr
    assert runs[0].stdout == runs[1].stdout


def larger_vocabulary(folder: Path) -> None:
    """A manifest that agrees with itself, but whose logits would take gigabytes that the graph never gives."""
    manifest = json.loads((folder / "manifest.json").read_text())
    spec = manifest["spec"]
    spec["vocab_size"] = spec["graphs"]["model"]["outputs"][0]["dims"][2] = 1 << 30
    (folder / "manifest.json").write_text(json.dumps(manifest))


def larger_weight(folder: Path) -> None:
    """A weight of a terabyte, in a file of the right hash."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    weight = next(w for w in model.graph.initializer if w.external_data and len(w.dims) == 2)
    weight.dims[0] = (1 << 40) // (weight.dims[1] * 4)
    next(e for e in weight.external_data if e.key == "length").value = str(weight.dims[0] * weight.dims[1] * 4)
    onnx.save(model, folder / "model.onnx")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = vars(describe(folder / "model.onnx"))
    (folder / "manifest.json").write_text(json.dumps(manifest))


def counts_too_far(graph: onnx.GraphProto) -> None:
    """Each loop is counted as 100."""
    body = body_of(loop_of(graph))
    counting = next(node for node in body.node if node.op_type == "loop_goes_on")
    counted, counting.output[1] = counting.output[1], "counted"
    body.node.append(helper.make_node("Constant", [], [counted], value_int=100))


def lacks_a_port(graph: onnx.GraphProto) -> None:
    next(port for port in graph.input if port.name == "stops").name = "starts"
    body = body_of(loop_of(graph))
    inputs = next(node for node in body.node if "stops" in node.input).input
    inputs[list(inputs).index("stops")] = "starts"


def writes_to_a_constant(graph: onnx.GraphProto) -> None:
    """The pages are a tensor of the file."""
    port = next(port for port in graph.input if port.name == "cache_0")
    shape = [2, *(dim.dim_value for dim in port.type.tensor_type.shape.dim[1:])]
    graph.initializer.append(helper.make_tensor("pages", onnx.TensorProto.FLOAT, shape, np.zeros(shape).ravel()))
    node = next(node for node in body_of(loop_of(graph)).node if node.op_type.startswith("paged_"))
    node.input[list(node.input).index("cache_0")] = "pages"


def gives_no_output(graph: onnx.GraphProto) -> None:
    """An attention whose cache is not wanted, in the step as it is."""
    node = next(node for node in graph.node if node.op_type.startswith("paged_"))
    node.output[1] = ""


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("loops.onnx", counts_too_far, "loops.onnx says that it ran 100 loops of "),
        ("loops.onnx", lacks_a_port, "lacks the port"),
        ("loops.onnx", writes_to_a_constant, "cache is written to, and is a constant of the graph"),
        ("step.onnx", gives_no_output, "cannot be loaded by ONNX Runtime"),
    ],
)
@pytest.mark.skipif(find_op_library() is None, reason="the native operators are not built: make native")
def test_a_damaged_step_is_an_error_of_both_runtimes(
    file: str, change: Callable[[onnx.GraphProto], None], words: str, bundles: Bundles, tmp_path: Path
) -> None:
    folder = shutil.copytree(bundles["mla_decode"], tmp_path / "bundle")
    model = onnx.load(folder / file, load_external_data=False)
    change(model.graph)
    onnx.save(model, folder / file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = vars(describe(folder / file))
    if file == "step.onnx":  # which runs where the other is not
        del manifest["files"]["loops.onnx"]
        manifest["targets"][0]["files"].remove("loops.onnx")
        (folder / "loops.onnx").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found = cpp(RUN, folder, "--ids", "1,2", "--max-new-tokens", "2", library=find_op_library())
    assert words in found.stderr and 0 < found.returncode < 128, found
    with pytest.raises(RuntimeBundleError, match=words):
        load(folder, engine="python").generate_all([[1, 2]], max_new_tokens=2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"library": "tensorrt_rtx"}, "needs an ONNX Runtime built with NvTensorRTRTXExecutionProvider"),
        ({"library": "tensorrt"}, "an engine of full TensorRT, and this program was built without it"),
        ({"library": "tensorrt_rtx", "plugins": True}, "needs an ONNX Runtime built with NvTensorRTRTX"),
    ],
    ids=["RTX", "full", "plug-ins"],
)
def test_an_engine_that_cannot_run_here_says_what_is_missing(
    engine: dict[str, Any], words: str, bundles: Bundles, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles["mla_decode"], folder)
    (folder / "x.engine").write_bytes(b"vtrt")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["x.engine"] = vars(describe(folder / "x.engine"))
    details = {"engines": [{"file": "x.engine", "sm": [86], **engine}]}
    target = {"name": "tensorrt", "state": "built, not executed", "files": ["x.engine"], "details": details}
    manifest["targets"].append(target)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    result = cpp(RUN, folder, "--ids", "1", "--backend", "tensorrt")
    assert result.returncode == 3 and words in result.stderr, result.stderr
    assert "--backend onnxruntime" in result.stderr
    details["engines"][0]["sm"] = ["86"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cpp(RUN, folder, "--ids", "1", "--backend", "tensorrt").returncode == 2
