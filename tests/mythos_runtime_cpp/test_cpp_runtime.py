"""The C++ runtime held against the Python one: same tokens, same logits, same texts of errors, same exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_programs import DUMP, RUN, changed, cpp, needs_cpp, with_bytes
from cpu_ops import LIBRARY
from golden_bundles import Bundles

import mythos_runtime
from mythos_runtime import BackendMissing, Model, load

pytestmark = needs_cpp

CASES = ["mla_decode", "gqa_decode", "hops"]
TOKENS = 56  # after six of a prompt: the golden models take 64 positions
SAMPLED = {"temperature": 0.8, "seed": 7, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.1}
ENVIRONMENT = {**os.environ, "MYTHOS_OP_LIBRARY": "none", "MYTHOS_RUNTIME_LIBRARY": "none"}
"""Both run the portable operators, and Python its own engine."""


@pytest.fixture(autouse=True)
def portable_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYTHOS_OP_LIBRARY", "none")


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "import sys; from mythos_runtime.cli import mythos; mythos(sys.argv[1:], prog_name='mythos')"
    return subprocess.run(
        [sys.executable, "-c", code, "run", *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT
    )


def prompts(model: Model, lengths: list[int]) -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [generator.integers(0, model.spec.vocab_size, length).tolist() for length in lengths]


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
    bundle = bundles[case]
    model = load(bundle, threads=1, engine="python")
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
    whole, cached = np.split(logits, [parts[0].size])
    assert np.abs(whole - parts[0].ravel()).max() <= 1e-6
    expected_cached = np.concatenate([part.ravel() for part in parts[1:]])
    assert np.array_equal(cached, expected_cached)  # both caches are pages that the row graphs fill


@pytest.mark.parametrize("text", [False, True], ids=["ids", "text"])
def test_the_command_takes_the_same_options_and_ends_with_the_same_json(
    text: bool, bundles: Bundles, tmp_path: Path
) -> None:
    bundle = with_bytes(bundles["hops"], tmp_path / "bundle") if text else bundles["hops"]
    prompt = ["--prompt", "é?"] if text else ["--ids", "1,2,3"]
    arguments = [bundle, *prompt, "--max-new-tokens", "16", "--threads", "1", "--json"]
    for more in (["--temperature", "0"], ["--temperature", "1.5", "--seed", "9", "--top-p", "0.9", "--max-loops", "6"]):
        ours, theirs = cpp(RUN, *arguments, *more), python(*arguments, *more)
        assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
        found, expected = (json.loads(result.stdout.splitlines()[-1]) for result in (ours, theirs))
        assert list(found) == [*expected, "steps", "rows", "late", "drafted", "accepted"]
        for key in set(expected) - {"tokens_per_second", "prefill_seconds"}:
            assert found[key] == expected[key], key
        assert 0 < found["steps"] <= found["rows"] and found["late"] < found["rows"]
        assert ours.stdout.splitlines()[:-1] == theirs.stdout.splitlines()[:-1]
        for result in (ours, theirs):
            assert "mean depth" in result.stderr and "the portable ones serve" in result.stderr
    end = ["--stop-ids", "99,1", "--stop-ids", ",".join(map(str, found["tokens"][3:5]))]
    for result in (cpp(RUN, *arguments, *more, *end), python(*arguments, *more, *end)):
        document = json.loads(result.stdout.splitlines()[-1])
        assert (document["tokens"], document["finished"]) == (found["tokens"][:5], "stop")


def test_the_bundle_s_ends_and_defaults_are_taken(bundles: Bundles, tmp_path: Path) -> None:
    plain = with_bytes(bundles["hops"], tmp_path / "plain")
    arguments = ["--prompt", "a b", "--threads", "1", "--json", "--temperature", "1.5"]
    whole = json.loads(cpp(RUN, plain, *arguments, "--max-new-tokens", "12").stdout.splitlines()[-1])
    entry = {"kind": "bytes", "file": None, "eos": [600, whole["tokens"][5]]}
    entry |= {"defaults": {"temperature": 3, "top_k": 100000, "top_p": 1.0, "max_new_tokens": 9}}
    entry |= {"sources": {"defaults": "generation_config.json"}}
    bundle = changed(plain, tmp_path / "bundle", lambda manifest: manifest.update(tokenizer=entry))
    text = [piece for piece in whole["text"] if piece.isascii()]
    for more in ([], ["--ignore-eos"], ["--eos", str(whole["tokens"][2])], ["--stop", "".join(text[1:2])]):
        ours, theirs = cpp(RUN, bundle, *arguments, *more), python(bundle, *arguments, *more)
        assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
        found, expected = (json.loads(result.stdout.splitlines()[-1]) for result in (ours, theirs))
        for key in ("text", "tokens", "finished"):
            assert found[key] == expected[key], (key, more)
        note = "defaults of the bundle (generation_config.json): --top-k 100000, --top-p 1.0"
        assert note in ours.stderr and note in theirs.stderr
    assert found["finished"] == "stop" and found["text"] == whole["text"][: whole["text"].index(text[1])]


def test_a_prompt_comes_from_a_file_or_from_stdin(bundles: Bundles, tmp_path: Path) -> None:
    bundle = with_bytes(bundles["hops"], tmp_path / "bundle")
    (tmp_path / "prompt").write_bytes("\ufeffgrün\n".encode())
    ends = ["--max-new-tokens", "4"]
    expected = cpp(RUN, bundle, "--prompt", "grün\n", *ends).stdout
    assert expected
    for prompt in (["--file", tmp_path / "prompt"], ["--file", "-"], ["--prompt", "-"]):
        with open(tmp_path / "prompt", "rb") as stdin:
            result = cpp(RUN, bundle, *prompt, *ends, stdin=stdin)
        assert result.stdout == expected, result.stderr


def test_the_version_is_the_python_package_s() -> None:
    assert cpp(RUN, "--version").stdout == f"mythos_run {mythos_runtime.__version__}\n"


def test_what_is_not_asked_for_fits_the_model(bundles: Bundles, tmp_path: Path) -> None:
    """A number that is asked for is not made smaller."""
    bundle = changed(bundles["mla_decode"], tmp_path / "bundle", lambda m: m["spec"].update(max_output_tokens=1))
    arguments = [RUN, bundle, "--ids", "1,2,3", "--json"]
    assert json.loads(cpp(*arguments).stdout.splitlines()[-1])["finished"] == "length"
    refused = cpp(*arguments, "--max-new-tokens", "2")
    assert (refused.returncode, refused.stderr.count("this model allows 1")) == (2, 1)


def test_threads_are_at_most_the_machine_s(bundles: Bundles) -> None:
    result = cpp(RUN, bundles["hops"], "--ids", "1", "--max-new-tokens", "1", "--threads", "100000")
    assert result.returncode == 0 and "--threads 100000: this process may use" in result.stderr


def test_sizes_alone_are_compared_where_asked(bundles: Bundles, tmp_path: Path) -> None:
    """A golden file of the right size, which running does not read."""
    folder = changed(bundles["mla_decode"], tmp_path / "bundle", lambda manifest: None)
    data = bytearray((folder / "golden.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "golden.safetensors").write_bytes(data)
    arguments = [RUN, folder, "--ids", "1", "--max-new-tokens", "1"]
    assert cpp(*arguments).returncode == 2
    assert cpp(*arguments, "--verify", "sizes").returncode == 0
    (folder / "golden.safetensors").write_bytes(data[:-1])
    assert cpp(*arguments, "--verify", "sizes").returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    "options", [["--ids", "1", "--json"], ["--help"], ["--version"]], ids=["run", "help", "version"]
)
def test_output_that_is_lost_is_an_error(options: list[str], bundles: Bundles) -> None:
    with open("/dev/full", "wb") as full:
        result = cpp(RUN, bundles["mla_decode"], *options, stdout=full)
    assert result.returncode == 3
    assert result.stderr.splitlines()[-1] == "error: cannot write to the standard output: No space left on device"


@pytest.mark.parametrize("ignored", [False, True], ids=["SIGPIPE", "SIGPIPE ignored by the parent"])
def test_a_closed_pipe_ends_quietly(ignored: bool, bundles: Bundles) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = cpp(RUN, bundles["mla_decode"], "--ids", "1", stdout=writing, restore_signals=not ignored)
    os.close(writing)
    assert result.returncode == 141 and "error" not in result.stderr


def test_a_prompt_that_is_no_text_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    bundle = with_bytes(bundles["hops"], tmp_path / "bundle")
    result = cpp(RUN, bundle, "--prompt", b"a\xffb")
    assert (result.returncode, result.stderr.splitlines()[-1]) == (2, "error: the prompt is not UTF-8: byte 0xff at 1")


@pytest.mark.skipif(not LIBRARY.exists(), reason="the CPU kernels are not built: make native")
@pytest.mark.parametrize("case", ["hops", "hops, int4"])
def test_the_cpu_kernels_give_the_same_in_both(case: str, bundles: Bundles) -> None:
    arguments = [RUN, bundles[case], "--ids", "1,2,3", "--max-new-tokens", "16", "--threads", "1", "--json"]
    ours = cpp(*arguments, library=LIBRARY)
    assert ours.returncode == 0, ours.stderr
    of_python = load(bundles[case], threads=1, op_library=LIBRARY, engine="python")
    theirs = of_python.generate_all([[1, 2, 3]], max_new_tokens=16)
    found = json.loads(ours.stdout.splitlines()[-1])
    assert (found["tokens"], found["depth"]) == (theirs.tokens[0], theirs.depth[0])
    missing = cpp(*arguments, library="/nowhere.so")
    with pytest.raises(BackendMissing) as refused:
        load(bundles[case], op_library=Path("/nowhere.so"))
    assert (missing.returncode, missing.stderr) == (3, f"error: {refused.value}\n")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--ids", "1", "--prompt", "a"],
        ["--ids", "a"],
        ["--ids", "1,,2"],
        ["--ids", "-1"],
        ["--ids", "1,-"],
        ["--ids", "999999999999999999999"],
        ["--ids", "000000000000000000000000999"],
        ["--prompt", "a", "--file", "b", "--ids", "1"],
        ["--ids", "1,99999999"],
        ["--prompt", ""],
        ["--ids", "1", "--temperature", "-1"],
        ["--ids", "1", "--temperature", "nan"],
        ["--ids", "1", "--top-p", "0"],
        ["--ids", "1", "--min-p", "2"],
        ["--ids", "1", "--repetition-penalty", "1e9"],
        ["--ids", "1", "--top-k", "-3"],
        ["--ids", "1", "--seed", "-1"],
        ["--ids", "1", "--seed", "18446744073709551616"],
        ["--ids", "1", "--max-new-tokens", "0"],
        ["--ids", "1", "--max-new-tokens", "100000000"],
        ["--ids", "1", "--max-loops", "-1"],
        ["--ids", "1", "--max-loops", "257"],
        ["--ids", "1", "--loops-per-token", "0.5"],
        ["--ids", "1", "--latency-ms", "-1"],
        ["--ids", "1", "--speculate", "0"],
        ["--ids", "1", "--speculate", "257"],
        ["--ids", "1", "--speculate", "99"],
        ["--ids", "1", "--speculate", "1", "--max-loops", "1"],
        ["--ids", "1", "--depth-trace", "/nowhere/trace"],
        ["--ids", "1", "--depth-trace", "trace/nowhere"],
        ["--ids", "1", "--depth-trace", "/"],
        ["--ids", "1", "--depth-trace", "/etc/passwd/trace"],
        ["--ids", "1", "--depth-trace", "/proc/trace"],
        ["--ids", "1", "--eos", "-2"],
        ["--ids", "1", "--eos", "128"],
        ["--ids", "1", "--eos", "2", "--ignore-eos"],
        ["--ids", "1", "--stop", "x"],
        ["--ids", "1", "--stop-ids", "2,"],
        ["--ids", "1", "--stop-ids", "2", "--stop-ids", "x"],
        ["--ids", "1", "--stop-ids", "2", "--stop-ids", "3,128"],
        ["--file", "/nowhere"],
        ["--ids", "1", "--halt-threshold", "1e300"],
        ["--ids", "1", "--halt-threshold", "nan"],
        ["--ids", "1", "--halt-threshold=-1e39"],
        ["--ids", "1", "--backend", "tensorrt"],
    ],
    ids=" ".join,
)
def test_errors_are_python_s(options: list[str], bundles: Bundles, capsys: pytest.CaptureFixture[str]) -> None:
    from click.testing import CliRunner

    from mythos_runtime.cli import mythos

    ours = cpp(RUN, bundles["mla_decode"], *options)
    theirs = subprocess_free(CliRunner().invoke(mythos, ["run", str(bundles["mla_decode"]), *options]), capsys)
    assert ours.returncode == theirs[0]
    assert ours.stderr.strip().splitlines()[-1] == theirs[1].strip().splitlines()[-1]


def subprocess_free(result: Any, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and stderr of a command run in this process (rich writes to the real stderr, Click to its own)."""
    return result.exit_code, result.stderr + capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--policy", "none"],
        ["--threads", "0"],
        ["--top-k", "many"],
        ["--top-k", "010"],
        ["--temperature", "hot"],
        ["--max-new-tokens"],
        ["--nothing"],
        ["more"],
    ],
    ids=" ".join,
)
def test_what_no_option_takes_is_one_line(options: list[str], bundles: Bundles) -> None:
    result = cpp(RUN, bundles["mla_decode"], "--ids", "1", *options)
    assert result.returncode == 2 and result.stdout == ""
    assert len(result.stderr.splitlines()) == 1 and options[0] in result.stderr, result.stderr


def test_a_prompt_may_look_like_an_option(bundles: Bundles, tmp_path: Path) -> None:
    bundle = with_bytes(bundles["hops"], tmp_path / "bundle")
    assert cpp(RUN, bundle, "--prompt", "--json", "--max-new-tokens", "1").returncode == 0
    assert (
        cpp(
            RUN, "--stop-ids", "4,5", "--eos", "2", "--eos", "3", "--max-new-tokens", "1", "--ids", "1", bundle
        ).returncode
        == 0
    )
