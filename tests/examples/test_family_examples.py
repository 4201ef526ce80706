"""The examples of the families, which are written for the real weights, run with tiny ones."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from family_bundles import FamilyBundles
from loading import example

pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "case", "options", "expected"),
    [
        (
            "ouro/chat",
            "ouro_exit_decode",
            ["--tokens", "6"],
            [
                "ends with [2]: 2 from the tokenizer's eos_token and the end of an answer in the chat template; "
                "not config.json's 0",
                "passes: ",
            ],
        ),
        slow("huginn/adaptive", "huginn_decode", ["--tokens", "5", "--threshold", "0.4"], ["seed 0, ", "seed 1, "]),
        slow("parcae/depths", "parcae_decode", ["--tokens", "5", "--loops", "1,9"], ["1 loops, ", "9 loops, "]),
        slow("nanbeige/passes", "nanbeige_decode", ["--tokens", "5"], ["1 passes, ", "2 passes, ", "3 passes, "]),
    ],
)
def test_examples_run(
    name: str,
    case: str,
    options: list[str],
    expected: list[str],
    family_bundles: FamilyBundles,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = family_bundles.speaking(case, tmp_path)
    example(name).main([str(bundle), "why is the sky blue ?", *options])
    printed = capsys.readouterr().out
    at = 0
    for text in expected:
        at = printed.index(text, at)
