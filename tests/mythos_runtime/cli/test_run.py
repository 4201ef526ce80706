"""`mythos run`: prompts from everywhere, defaults that give way, explicit values that do not, and what goes where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from golden_bundles import SHIPPED_HOPS, Bundles
from text_bundles import change_tokenizer

from mythos_runtime import load
from mythos_runtime.cli import mythos
from mythos_runtime.cli.generation import Request, stream
from mythos_runtime.generate import LENGTH, Step
from mythos_runtime.tokenizer import ByteTokenizer


def run(bundle: Path, *arguments: str, stdin: str | bytes = "") -> Result:
    result = CliRunner().invoke(mythos, ["run", str(bundle), *arguments], input=stdin)
    assert "Traceback" not in result.output
    return result


def ran(bundle: Path, *arguments: str, stdin: str | bytes = "") -> dict[str, Any]:
    """The JSON of a run that went well."""
    result = run(bundle, *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return document


def test_mythos_run_ends_with_json(bundles: Bundles) -> None:
    arguments = ["run", str(bundles["mla_decode"]), "--ids", "1,2,3", "--max-new-tokens", "5", "--json"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    assert set(document) >= {"tokens", "depth", "loops", "tokens_per_second", "policy"}
    assert len(document["tokens"]) == len(document["depth"]) == 5
    for wrong in (["--prompt", "x"], [], ["--ids", "a"], ["--ids", "1", "--temperature", "-1"]):
        result = CliRunner().invoke(mythos, ["run", str(bundles["mla_decode"]), *wrong])
        assert (result.exit_code, "Traceback" in result.output) == (2, False)


def test_a_prompt_is_all_that_the_shipped_model_needs(bundles: Bundles) -> None:
    """It may give one token, fewer than the default number."""
    assert len(ran(bundles[SHIPPED_HOPS], "--ids", "1,2,3")["tokens"]) == 1
    refused = run(bundles[SHIPPED_HOPS], "--ids", "1,2,3", "--max-new-tokens", "2")
    assert (refused.exit_code, refused.stderr) == (2, "error: --max-new-tokens is 2, but this model allows 1\n")


def test_a_long_prompt_leaves_what_room_there_is(bundles: Bundles) -> None:
    longest = load(bundles["mla_decode"]).spec.max_seq_len
    ids = ",".join(["1"] * (longest - 2))
    assert len(ran(bundles["mla_decode"], "--ids", ids)["tokens"]) == 3
    assert "exceeds the" in run(bundles["mla_decode"], "--ids", ",".join(["1"] * (longest + 1))).stderr


def test_ids_or_text_alone_go_to_stdout(bundles: Bundles) -> None:
    result = run(bundles["mla_decode"], "--ids", "1,2,3", "--max-new-tokens", "5")
    tokens = load(bundles["mla_decode"]).generate_all([[1, 2, 3]], max_new_tokens=5).tokens[0]
    assert [int(word) for word in result.stdout.split()] == tokens
    assert "5 tokens" in result.stderr
    assert "loops" in result.stderr


def test_a_prompt_comes_from_an_option_a_file_or_stdin(speaking: Path, tmp_path: Path) -> None:
    text = "naïve\n"
    (tmp_path / "prompt").write_bytes(b"\xef\xbb\xbf" + text.encode())  # a BOM is no text
    expected = ran(speaking, "--ids", ",".join(map(str, text.encode())))["tokens"]
    for arguments, stdin in (
        (["--prompt", text], ""),
        (["--prompt", "-"], text),
        (["--file", "-"], text),
        (["--file", str(tmp_path / "prompt")], ""),
    ):
        assert ran(speaking, *arguments, stdin=stdin)["tokens"] == expected, arguments


def test_chat_applies_the_template(speaking: Path) -> None:
    prompt = "[system] be brief\n[user] why?\n[assistant] "
    chat = ran(speaking, "--chat", "--system", "be brief", "--prompt", "why?")
    assert chat["tokens"] == ran(speaking, "--prompt", prompt)["tokens"] != ran(speaking, "--prompt", "why?")["tokens"]


def test_eos_and_defaults_of_the_bundle(speaking: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(speaking, bundle)
    free = ran(speaking, "--prompt", "x", "--max-new-tokens", "8")["tokens"]
    at = next(index for index in range(1, 8) if free[index] not in free[:index])
    defaults = {"max_new_tokens": 4, "temperature": 1.5}
    change_tokenizer(bundle, eos=[601, free[at]], defaults=defaults, sources={"defaults": "a file"})
    greedy = ["--prompt", "x", "--temperature", "0"]
    ended = ran(bundle, *greedy, "--max-new-tokens", "8")
    assert (ended["tokens"], ended["finished"]) == (free[: at + 1], "eos")
    assert ran(bundle, *greedy, "--max-new-tokens", "8", "--ignore-eos")["tokens"] == free
    assert ran(bundle, *greedy, "--max-new-tokens", "8", "--eos", str(free[0]), "--eos", "5")["tokens"] == free[:1]
    sampled = run(bundle, "--prompt", "x", "--ignore-eos", "--json")
    assert sampled.stderr.startswith("defaults of the bundle (a file): --temperature 1.5\n")
    assert len(json.loads(sampled.stdout.splitlines()[-1])["tokens"]) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a prompt: one of --prompt TEXT, --file FILE or --ids 1,2,3"),
        (["--prompt", "x", "--ids", "1"], "--prompt and --ids are prompts, and one is taken: give one of them"),
        (["--prompt", ""], "the prompt of --prompt is empty; it should hold at least one token"),
        (["--file", "/dev/null"], "the prompt of --file is empty; it should hold at least one token"),
        (["--ids", "999999999999999999999"], "holds a number that no vocabulary has; expected a list like 1,2,3"),
        (["--ids", "602"], "--ids 602 never comes: this model's vocabulary has the ids 0 to 601"),
        (["--ids", "-1"], "--ids '-1' holds a negative number; ids are from 0 on, as in 1,2,3"),
        (["--prompt", "x", "--stop-ids", "3,999"], "--stop-ids 999 never comes: this model's vocabulary has the ids"),
        (["--prompt", "x", "--weights", "/tmp"], "--weights means nothing to this bundle, whose weights are in it"),
        (["--prompt", "x", "--speculate", "0"], "--speculate '0' is not auto, off, or a number of loops from 1 on"),
        (["--prompt", "x", "--speculate", "99"], "--speculate 99 drafts nothing, as a token runs at most"),
        (["--prompt", "a\udcff"], "the prompt is not UTF-8: byte 0xff at 1"),
        (["--file", "/nowhere"], "the prompt in /nowhere cannot be read: No such file"),
        (["--ids", "1", "--chat"], "--chat makes a prompt of text"),
        (["--prompt", "x", "--system", "y"], "give --chat too"),
        (["--prompt", "x", "--temperature", "-1"], "--temperature should not be negative"),
        (["--prompt", "x", "--repetition-penalty", "0"], "--repetition-penalty should be from"),
        (["--prompt", "x", "--eos", "602"], "--eos 602 never comes: this model's vocabulary has the ids 0 to 601"),
        (["--prompt", "x", "--eos", "1", "--ignore-eos"], "give one of them"),
        (["--prompt", "x", "--stop", ""], "a stop text is empty"),
        (["--prompt", "x", "--stop-ids", "x"], "--stop-ids 'x' is not a list of ids"),
        (["--prompt", "x", "--halt-threshold", "nan"], "--halt-threshold should be a finite number"),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "replace").decode() if isinstance(value, list) else "",
)
def test_what_cannot_be_done_names_the_option(speaking: Path, arguments: list[str], words: str) -> None:
    result = run(speaking, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_json_is_all_that_stdout_has(speaking: Path) -> None:
    text = run(speaking, "--prompt", "x", "--max-new-tokens", "5").stdout
    with_json = run(speaking, "--prompt", "x", "--max-new-tokens", "5", "--json")
    assert json.loads(with_json.stdout)["text"] + "\n" == text
    assert "5 tokens, " in with_json.stderr


def test_one_is_no_plural(speaking: Path) -> None:
    said = run(speaking, "--prompt", "x", "--max-new-tokens", "1", "--max-loops", "1").stderr
    assert "1 token in " in said and "tokens/s" not in said and "  1 loop  " in said


def test_stdin_that_is_no_utf8(speaking: Path) -> None:
    assert "the prompt is not UTF-8: byte 0xe4 at 2" in run(speaking, "--prompt", "-", stdin=b"na\xe4ve").stderr


def test_a_bundle_without_words(bundles: Bundles) -> None:
    for arguments in (["--prompt", "x"], ["--ids", "1", "--stop", "x"]):
        assert "this bundle has no tokenizer" in run(bundles["mla_decode"], *arguments).stderr


def test_portable_operators_are_named(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYTHOS_OP_LIBRARY", "none")
    result = run(bundles["mla_decode"], "--ids", "1", "--max-new-tokens", "1", "--json")
    assert result.stderr.startswith("no library of native operators is loaded: the portable ones serve")
    assert json.loads(result.stdout.splitlines()[-1])["operators"] == "portable"


def test_threads_are_bounded_by_the_machine(bundles: Bundles) -> None:
    result = run(bundles["mla_decode"], "--ids", "1", "--max-new-tokens", "1", "--threads", "9999")
    assert result.exit_code == 0
    assert "--threads 9999: this process may use" in result.stderr


# -- one sequence, from a model that says what it is told ------------------------------------------------------------


def saying(text: bytes) -> Any:
    def generate(ids: list[list[int]], **options: Any) -> Iterator[Step]:
        for place, byte in enumerate(text):
            finished = LENGTH if place == len(text) - 1 else None
            yield Step(np.array([byte]), np.array([3]), 4, 0.5, (finished,), np.array([False]))

    session = SimpleNamespace(operators="native")
    return SimpleNamespace(tokenizer=ByteTokenizer(256), generate=generate, session=session)


@pytest.mark.parametrize(
    ("said", "stops", "text", "tokens", "finished"),
    [
        (b"one two", (), "one two", 7, "length"),
        (b"one. two", (".",), "one", 4, "stop"),
        (b"one end", ("ending",), "one end", 7, "length"),
        ("naïve €".encode()[:-1], (), "naïve \ufffd", 9, "length"),
        ("€€".encode(), ("€",), "", 3, "stop"),
    ],
)
def test_a_sequence(said: bytes, stops: tuple[str, ...], text: str, tokens: int, finished: str) -> None:
    written: list[str] = []
    result = stream(saying(said), [1], Request({"policy": "full"}, stops), written.append)
    assert "".join(written) == text + "\n"
    assert (result.text, len(result.tokens), result.finished) == (text, tokens, finished)
    assert (result.prefill_seconds, result.decode_seconds) == (0.5, 0.5 * (tokens - 1))
