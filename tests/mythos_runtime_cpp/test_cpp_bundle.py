"""The C++ reader of bundles held against the Python one: same bundles taken, same texts of errors."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cpp_programs import PARSE, ROOT, RUN, cpp, needs_cpp
from golden_bundles import Bundles
from onnx import helper

from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime import BundleError, load
from mythos_runtime.errors import RuntimeBundleError
from mythos_runtime.files import describe
from mythos_runtime.manifest import parse_manifest
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
        "missing": lambda folder: (folder / "golden.safetensors").unlink(),
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


# What a reader says of a document that no manifest can be: which of these comes first is up to its JSON library.
NO_DOCUMENT = (
    "is not valid JSON",
    "which is not JSON",
    "too large for a number",
    "nests deeper than",
    "repeats the field",
)


def test_any_manifest_is_read_or_refused_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    source = (bundles["mla_decode"] / "manifest.json").read_bytes()
    words = [b"null", b"-1", b"1e999", b"NaN", b"9223372036854775808", b'""', b"{}", b"[]", b'"\\ud800"', b'"../x"']
    words += [b"0.5", b"\xff", b"\xc3", b"\\u", b",", b":", b'"', b"]", b"}", b"\n", b"\\", b'"a":1,', "é".encode()]
    words += [b"-0", b"00", b"+1", b"1.", b"1e5", b"9" * 400, b"true", b"\x00", b"\x0b", b"\xed\xa0\x80", b'"N"', b"//"]
    documents = [source, b"\xef\xbb\xbf" + source, b"", b"[]", b"[" * 40 + b"]" * 40, b'{"a":1,"a":2}', b"1.0"]
    documents += [
        b'"\\ud83d\\ude00"',
        b'"\\ude00"',
        source + b"\x00",
        source + b"{}",
        b"[" * 5000,
        b"[" + b"9" * 5000 + b"]",
        source.replace(b"{", b'{"shards": null, ', 1),  # as if it were not there
    ]
    assert parse_manifest(documents[-1]).shards is None
    generator = random.Random(1)
    for _ in range(1500):
        text = bytearray(source)
        for _ in range(generator.randint(1, 3)):
            at, length = generator.randrange(len(text)), generator.randrange(8)
            text[at : at + length] = generator.choice([b"", *words])
        documents.append(bytes(text))
    (tmp_path / "documents").write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in documents))
    lines = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    assert len(lines) == len(documents)
    for text, line in zip(documents, lines, strict=True):
        try:
            parse_manifest(text)
            expected = "ok"
        except BundleError as error:
            expected = str(error)
        if any(words in expected for words in NO_DOCUMENT):
            assert any(words in line for words in NO_DOCUMENT), (line, expected, text)
        else:
            assert line == expected, text


def test_the_spec_is_read_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    """Every value of the spec replaced in turn by others: the same manifests are refused, in the same words."""
    manifest = json.loads((bundles["mla_decode"] / "manifest.json").read_text())
    spec = manifest["spec"]
    spec["trace"] = spec["trace"][:2]
    drawn = next(state for state in spec["state"] if state["name"] == "h")
    drawn.update(start="noise", scale=1.0)
    port = {
        "name": "initial_state",
        "dtype": drawn["dtype"],
        "dims": drawn["dims"],
        "role": "initial_state",
        "group": None,
    }
    ports = spec["graphs"]["model"]["inputs"]
    ports.insert([each["name"] for each in ports].index("early_exit") + 1, port)
    spec["graphs"] = {"model": spec["graphs"]["model"]}
    documents = [json.dumps(manifest).encode()]
    for holder, key in places(spec):
        kept = holder[key]
        for other in (None, True, -1, 7, 1.5, "", "N", "noise", [], {}, [kept, kept]):
            holder[key] = other
            documents.append(json.dumps(manifest).encode())
        holder[key] = kept
    (tmp_path / "documents").write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in documents))
    lines = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    assert len(lines) == len(documents) > 1000
    assert lines[0] == "ok"
    for text, line in zip(documents, lines, strict=True):
        try:
            parse_manifest(text)
            assert line == "ok", text
        except BundleError as error:
            assert line == str(error), text


def test_formats_are_read_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    manifest = json.loads((bundles["mla_decode"] / "manifest.json").read_text())
    mixed = manifest | {"precision": "mixed"}
    formats = [{}, {"embed": "int8", "coda.ffn": "int4"}, {"embed": "int3"}, ["int8"], None, {"embed": 1}]
    documents = [manifest | {"formats": {"embed": "int8"}}, mixed, *(mixed | {"formats": each} for each in formats)]
    texts = [json.dumps(each).encode() for each in documents]
    (tmp_path / "documents").write_bytes(b"".join(b"%d\n%s" % (len(text), text) for text in texts))
    lines = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    assert lines[3] == "ok"
    for text, line in zip(texts, lines, strict=True):
        try:
            parse_manifest(text)
            assert line == "ok", text
        except BundleError as error:
            assert line == str(error), text


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (object, name) and (list, index) in a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in [(value, key), *places(value[key])]]


def test_links_are_taken_and_refused_in_python_s_words(tmp_path: Path) -> None:
    """From the seed of the fuzzer, which has to be taken: nothing behind a mistake in it would be fuzzed."""
    seed = json.loads((ROOT / "runtimes/cpp/tests/manifest_seed.json").read_text())
    file, tensor = ["links", "files", 0], ["links", "tensors", "embed.weight"]
    changes: list[tuple[list[Any], Any]] = [
        (["links"], None),
        ([*file, "path"], "a\nb"),
        ([*file, "path"], "a" * 5000),
        ([*file, "sha256"], "A" * 64),
        (["links", "files"], []),
        (["links", "colour"], 1),
        ([*tensor, "dtype"], "int8"),
        ([*tensor, "shape"], []),
        ([*tensor, "shape"], [True, 64]),
        ([*tensor, "shape"], [300, 65]),
        ([*tensor, "stretches"], []),
        ([*tensor, "stretches", 0, "start"], 10**9),
        ([*tensor, "stretches", 0, "start"], 2**63 - 1),
        ([*tensor, "stretches", 0, "file"], 1),
    ]
    documents = [json.dumps(seed)]
    for (*way, last), value in changes:
        place = changed = json.loads(documents[0])
        for step in way:
            place = place[step]
        place[last] = value
        documents.append(json.dumps(changed))
    del (lacking := json.loads(documents[0]))["links"]["tensors"]["embed.weight"]["shape"]
    documents.append(json.dumps(lacking))
    (tmp_path / "documents").write_text("".join(f"{len(text)}\n{text}" for text in documents))
    said = cpp(PARSE, tmp_path / "documents").stdout.splitlines()
    expected = []
    for text in documents:
        try:
            parse_manifest(text.encode())
            expected.append("ok")
        except BundleError as error:
            expected.append(str(error))
    assert said == expected and expected[:2] == ["ok", "ok"] and "ok" not in expected[2:]
