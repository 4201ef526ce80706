"""The examples that need no released weights run as their pages say, on small bundles."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import toy_family
from family_bundles import FamilyBundles
from golden_bundles import Bundles
from loading import EXAMPLES, example
from served_bundles import serving
from text_bundles import speaking_copy

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
