"""The C++ runtime held against the Python one: same tokens, same logits, same texts of errors, same exit codes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cpu_ops import LIBRARY
from golden_bundles import Bundles
from mythos_runtime.config import RuntimeConfig

from mythos_runtime import BackendMissing, BundleError, Model, load
from mythos_runtime.files import describe
from mythos_runtime.manifest import parse_manifest

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "native"
RUN, DUMP, PARSE = BUILD / "mythos_run", BUILD / "mythos_dump", BUILD / "mythos_parse"
pytestmark = pytest.mark.skipif(not RUN.is_file(), reason="the C++ runtime is not built: make native")

CASES = ["mla_decode", "gqa_decode", "hops"]
TOKENS = 64
SAMPLED = {"temperature": 0.8, "seed": 7, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1}
ENVIRONMENT = {**os.environ, "MYTHOS_OP_LIBRARY": "none"}  # both run the portable operators


@pytest.fixture(autouse=True)
def portable_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYTHOS_OP_LIBRARY", "none")


def cpp(*arguments: object, library: object = "none") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MYTHOS_OP_LIBRARY": str(library)}
    return subprocess.run([str(item) for item in arguments], capture_output=True, text=True, env=environment)


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; from mythos_export.cli import mythos; mythos(sys.argv[1:], prog_name='mythos')"
    return subprocess.run(
        [sys.executable, "-c", code, "run", *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT
    )


def prompts(model: Model, lengths: list[int]) -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, model.config.vocab_size, length).tolist() for length in lengths]


def with_room(bundle: Path, copy: Path) -> Path:
    """The bundle with a larger max_seq_len: the golden models have 64, the graph has no table of positions."""
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["config"]["max_seq_len"] = max(manifest["config"]["max_seq_len"], 2 * TOKENS)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def python_logits(model: Model, rows: list[list[int]], left: bool) -> list[np.ndarray]:
    """As tests/dump.cpp: without a cache, then through one in two chunks."""
    width = max(map(len, rows))
    ids, valid = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), bool)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, place], valid[row, place] = tokens, True
    cache, cut = model.new_cache(len(rows), width + 1), (width + 1) // 2
    parts = [model.forward(ids, valid=valid).logits]
    for part in (slice(0, cut), slice(cut, width)):
        parts.append(model.forward(ids[:, part], valid=valid[:, part], cache=cache).logits)
    return parts


@pytest.mark.parametrize(
    ("lengths", "padding"),
    [([5], "right"), ([5, 2, 6], "right"), ([5, 2, 6], "left")],
    ids=["B1", "B3-ragged", "B3-ragged-left"],
)
@pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("case", CASES)
def test_tokens_and_logits_are_python_s(
    case: str, options: dict[str, Any], lengths: list[int], padding: str, bundles: Bundles, tmp_path: Path
) -> None:
    bundle = with_room(bundles[case], tmp_path / "bundle")
    model = load(bundle, threads=1)
    rows = prompts(model, lengths)
    text = ";".join(",".join(map(str, row)) for row in rows)
    sampling = (options.get("temperature", 0), options.get("seed", 0))
    result = cpp(DUMP, bundle, text, tmp_path / "logits", *sampling, TOKENS, padding)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    expected = model.generate_all(rows, max_new_tokens=TOKENS, prefill_chunk=3, **options)
    assert found["tokens"] == expected.tokens and {len(row) for row in found["tokens"]} == {TOKENS}
    assert found["depth"] == expected.depth
    assert found["loops"] == expected.loops
    parts = python_logits(model, rows, padding == "left")
    logits = np.fromfile(tmp_path / "logits", np.float32)
    assert logits.size == sum(part.size for part in parts)
    difference = np.abs(logits - np.concatenate([part.ravel() for part in parts])).max()
    assert difference <= 1e-6, f"logits differ by {difference:.1e}"


def test_the_command_takes_the_same_options_and_ends_with_the_same_json(bundles: Bundles) -> None:
    arguments = [bundles["hops"], "--ids", "1,2,3", "--max-new-tokens", "16", "--threads", "1", "--json"]
    for more in (["--temperature", "0"], ["--temperature", "1.5", "--seed", "9", "--top-p", "0.9", "--max-loops", "6"]):
        ours, theirs = cpp(RUN, *arguments, *more), python(*arguments, *more)
        assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
        found, expected = (json.loads(text.splitlines()[-1]) for text in (ours.stdout, theirs.stdout))
        assert list(found) == [key for key in expected if key != "text"]
        for key in ("tokens", "depth", "loops", "policy", "finished"):
            assert found[key] == expected[key], key
        assert ours.stdout.splitlines()[0] == theirs.stdout.splitlines()[0]
    end = ["--stop-ids", "99,1", "--stop-ids", ",".join(map(str, found["tokens"][3:5]))]
    for result in (cpp(RUN, *arguments, *more, *end), python(*arguments, *more, *end)):
        document = json.loads(result.stdout.splitlines()[-1])
        assert (document["tokens"], document["finished"]) == (found["tokens"][:5], "stop")


@pytest.mark.skipif(not LIBRARY.exists(), reason="the CPU kernels are not built: make native")
@pytest.mark.parametrize("case", ["hops", "hops, int4"])
def test_the_cpu_kernels_give_the_same_in_both(case: str, bundles: Bundles) -> None:
    arguments = [RUN, bundles[case], "--ids", "1,2,3", "--max-new-tokens", "16", "--threads", "1", "--json"]
    ours = cpp(*arguments, library=LIBRARY)
    assert ours.returncode == 0, ours.stderr
    theirs = load(bundles[case], threads=1, op_library=LIBRARY).generate_all([[1, 2, 3]], max_new_tokens=16)
    found = json.loads(ours.stdout.splitlines()[-1])
    assert (found["tokens"], found["depth"]) == (theirs.tokens[0], theirs.depth[0])
    missing = cpp(*arguments, library="/nowhere.so")
    with pytest.raises(BackendMissing) as refused:
        load(bundles[case], op_library=Path("/nowhere.so"))
    assert (missing.returncode, missing.stderr) == (3, f"error: {refused.value}\n")


@pytest.mark.parametrize(
    "options",
    [
        ["--ids", "a"],
        ["--ids", "1,,2"],
        ["--ids", "1,99999999"],
        ["--ids", "1,99999999999999999999"],
        ["--prompt", ""],
        ["--ids", "1", "--temperature", "-1"],
        ["--ids", "1", "--temperature", "nan"],
        ["--ids", "1", "--top-p", "0"],
        ["--ids", "1", "--min-p", "2"],
        ["--ids", "1", "--repetition-penalty", "1e9"],
        ["--ids", "1", "--top-k", "-3"],
        ["--ids", "1", "--seed", "-1"],
        ["--ids", "1", "--max-new-tokens", "0"],
        ["--ids", "1", "--max-new-tokens", "100000000"],
        ["--ids", "1", "--max-loops", "-1"],
        ["--ids", "1", "--eos", "-2"],
        ["--ids", "1", "--stop-ids", "2,"],
        ["--ids", "1", "--stop-ids", "2", "--stop-ids", "x"],
        ["--ids", "1", "--halt-threshold", "1e300"],
        ["--ids", "1", "--policy", "none"],
        ["--ids", "1", "--threads", "0"],
        ["--ids", "1", "--top-k", "many"],
        ["--ids", "1", "--backend", "tensorrt"],
    ],
    ids=" ".join,
)
def test_errors_are_python_s(options: list[str], bundles: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    from click.testing import CliRunner

    from mythos_export.cli import mythos

    ours = cpp(RUN, bundles["mla_decode"], *options)
    theirs = subprocess_free(CliRunner().invoke(mythos, ["run", str(bundles["mla_decode"]), *options]), capsys)
    assert ours.returncode == theirs[0]
    found, expected = (plain(text.strip().splitlines()[-1]) for text in (ours.stderr, theirs[1]))
    assert found == expected


def plain(text: str) -> str:
    """Python names options where C++ still names parameters."""
    return text.replace("--", "").replace("-", "_")


def subprocess_free(result: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of a command run in this process (rich writes to the real stderr, Click to its own)."""
    return result.exit_code, result.stderr + capsys.readouterr().err


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
        "not JSON": lambda folder: (folder / "manifest.json").write_text("{]"),
        "truncated JSON": edit("}\n}\n", ""),
        "too large": lambda folder: (folder / "manifest.json").write_bytes(b" " * (5 << 20)),
        "path leaves": edit('"model.onnx"', '"../model.onnx"'),
        "newer": edit('_version": 1', '_version": 99'),
        "other shape": edit('"kv_lora_rank": ', '"kv_lora_rank": 1'),
        "the manifest promises more than the graph": larger_vocabulary,
        "a shape larger than its file": larger_weight,
        "no such bundle": lambda folder: shutil.rmtree(folder),
    }
    for name, damage in damages.items():
        folder = tmp_path / "bundle"
        shutil.copytree(bundles["mla_decode"], folder)
        damage(folder)
        with pytest.raises(BundleError) as refused:
            load(folder)
        result = cpp(RUN, folder, "--ids", "1")
        assert (result.returncode, result.stderr) == (2, f"error: {refused.value}\n"), name
        shutil.rmtree(folder, ignore_errors=True)


def larger_vocabulary(folder: Path) -> None:
    """A manifest that agrees with itself, but whose logits would take gigabytes that the graph never gives."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["vocab_size"] = manifest["ports"]["outputs"][0]["dims"][2] = 1 << 30
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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"library": "tensorrt_rtx"}, "needs an ONNX Runtime built with NvTensorRTRTXExecutionProvider"),
        ({"library": "tensorrt"}, "an engine of full TensorRT, and this program was built without it"),
        ({"library": "tensorrt_rtx", "plugins": True}, "calls plug-ins written in Python"),
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


def test_any_manifest_is_read_or_refused_in_python_s_words(bundles: Bundles, tmp_path: Path) -> None:
    source = (bundles["mla_decode"] / "manifest.json").read_bytes()
    words = [b"null", b"-1", b"1e999", b"NaN", b"9223372036854775808", b'""', b"{}", b"[]", b'"\\ud800"', b'"../x"']
    words += [b"0.5", b"\xff", b"\xc3", b"\\u", b",", b":", b'"', b"]", b"}", b"\n", b"\\", b'"a":1,', "é".encode()]
    generator, documents = random.Random(1), [source, b"", b"[]", b"[" * 40 + b"]" * 40, b'{"a":1,"a":2}', b"1.0"]
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
            RuntimeConfig.from_manifest(parse_manifest(text))
            expected = "ok"
        except BundleError as error:
            expected = str(error)
        assert line == expected, text


def test_an_installed_runtime_is_found_by_cmake(bundles: Bundles, tmp_path: Path) -> None:
    example, build = ROOT / "runtimes" / "cpp" / "example", tmp_path / "build"
    for command in (
        ["cmake", "--install", BUILD, "--prefix", tmp_path / "installed"],
        ["cmake", "-S", example, "-B", build, f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}"],
        ["cmake", "--build", build],
    ):
        result = cpp(*command)
        assert result.returncode == 0, result.stdout + result.stderr
    shown = cpp(build / "example", bundles["mla_decode"])
    expected = load(bundles["mla_decode"], threads=1).generate_all([[1, 2, 3]], max_new_tokens=8).tokens[0]
    assert (shown.returncode, shown.stdout.split()) == (0, [str(token) for token in expected]), shown.stderr
    installed = cpp(tmp_path / "installed" / "bin" / "mythos_run", "--help")
    assert installed.returncode == 0, installed.stderr
