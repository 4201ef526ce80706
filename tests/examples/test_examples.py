"""The examples that need no released weights run as their pages say, on small bundles."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import toy_family
from family_bundles import FamilyBundles
from golden_bundles import Bundles
from loading import EXAMPLES, example
from served_bundles import serving
from text_bundles import speaking_copy

from mythos_runtime import RequestError, read_manifest

REPOSITORY = EXAMPLES.parent


def test_chat(
    family_bundles: FamilyBundles, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    bundle = family_bundles.speaking("ouro_exit_decode", tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("why is the sky blue ?\nwhy ?\n\n"))
    example("chat/chat").main([str(bundle), "--tokens", "5", "--loops", "2"])
    said = capsys.readouterr().out
    assert said.count("> ") == 3 and said.count("loops on average)") == 2
    assert "of 4 loops" in said


def test_depth_per_token(bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    picture = tmp_path / "depth.svg"
    example("depth_per_token/plot").main([str(bundle), "abc", "--tokens", "4", "--out", str(picture)])
    assert "7 tokens" in capsys.readouterr().out
    assert picture.read_text().count("<path") > 7


def test_serving_with_budgets(bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openai")
    bundle = speaking_copy(bundles["hops"], tmp_path / "bundle")
    budgets = example("serving_budgets/budgets")
    with serving(bundle, name="text") as server:
        budgets.main([f"http://{server.url.removeprefix('http://')}", "text", "abc", "--tokens", "6"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(budgets.BUDGETS)
    means = [float(line.split(" loops a token")[0].split()[-1]) for line in lines]
    depth = {words: mean for (words, _), mean in zip(budgets.BUDGETS, means, strict=True)}
    assert depth["at most 3 loops"] <= 3 and depth["2 loops on average"] <= depth["as the model decides"]
    assert depth["every loop of every token"] == read_manifest(bundle).spec.trained_loops
    texts = {words: line.split(" ms: ")[1] for (words, _), line in zip(budgets.BUDGETS, lines, strict=True)}
    assert texts["the same, nothing put off"] == texts["as the model decides"]


@pytest.mark.parametrize(
    "name", ["chat/chat", "depth_per_token/plot", "ouro/chat", "huginn/adaptive", "parcae/depths", "nanbeige/passes"]
)
def test_a_mistake_is_one_line(name: str, tmp_path: Path) -> None:
    words = [str(tmp_path / "nowhere"), *(["a"] if name != "chat/chat" else [])]
    program = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "nowhere" in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["chat/chat", "depth_per_token/plot"])
def test_a_bundle_without_a_tokenizer_is_refused_at_once(name: str, bundles: Bundles, tmp_path: Path) -> None:
    words = [str(bundles["hops"]), *(["a"] if name != "chat/chat" else [])]
    with pytest.raises(RequestError, match="no tokenizer"):
        example(name).main(words)


@pytest.mark.slow
def test_a_family_in_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    from mythos_model import families

    before = list(families.FAMILIES)
    try:
        toy_family.main()
    finally:
        families.FAMILIES[:] = before
    said = capsys.readouterr().out
    assert "toy: verified" in said and "loops [" in said


@pytest.mark.parametrize("page", sorted(EXAMPLES.rglob("*.md")), ids=lambda page: str(page.relative_to(EXAMPLES)))
def test_what_a_page_says_to_run_is_there(page: Path) -> None:
    words = page.read_text().split()
    named = [word for word in words if word.startswith("examples/") and word.endswith((".py", ".ipynb", ".yaml"))]
    assert all((REPOSITORY / name).is_file() for name in named), named
