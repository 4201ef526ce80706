"""The papers of a bundle: a card that says what is known and what is not, and a page that leads to the reports."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from golden_bundles import Bundles

from mythos_export.card import CARD, find_licence, with_card
from mythos_export.package import Bundle
from mythos_runtime import read_manifest
from mythos_runtime.files import describe
from mythos_runtime.manifest import NOT_VERIFIED


def test_a_bundle_has_a_card_that_lists_it(bundles: Bundles) -> None:
    folder = bundles["gqa_prefill"]
    manifest, card = read_manifest(folder), (folder / CARD).read_text()
    assert CARD in manifest.files
    assert manifest.source.sha256 is not None and manifest.source.sha256 in card
    for name, entry in manifest.files.items():
        assert name == CARD or f"| {name} | {entry.bytes} | {entry.sha256} |" in card
    assert "| onnx | verified |" in card and "stages compute what the eager model computes" in card
    assert "license: unknown" in card and "| licence | not stated in the files beside the weights |" in card


def test_the_index_leads_to_what_is_there_or_says_what_makes_it(bundles: Bundles) -> None:
    reports = bundles["gqa_prefill"] / "reports"
    page = (reports / "index.html").read_text()
    links = set(re.findall(r'href="([^"]+)"', page))
    assert "latency.html" in page and "generation.html" in page and page.count("mythos bench BUNDLE") == 2
    assert "<footer></footer>" not in page
    parity = re.findall(r'href="([^"]+)"', (reports / "parity.html").read_text())
    assert "index.html" in parity
    assert all((reports / link).is_file() for link in (*links, *parity) if not link.startswith("#"))


def test_a_card_is_written_anew(bundles: Bundles, tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["gqa_prefill"], tmp_path / "bundle")
    manifest = read_manifest(folder)
    put_off = tuple(replace(target, state=NOT_VERIFIED) for target in manifest.targets)
    made = with_card(Bundle(folder, replace(manifest, targets=put_off), ()), "apache-2.0", None)
    card = (folder / CARD).read_text()
    assert made.manifest.files.keys() == manifest.files.keys()
    assert made.manifest.files[CARD] == describe(folder / CARD) != manifest.files[CARD]
    assert "license: apache-2.0\n" in card and "nothing was compared with the model yet" in card
    with_card(Bundle(folder, replace(made.manifest, precision="int8"), ()), None, None)
    assert "It was compared" not in (folder / CARD).read_text()


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n"}, "apache-2.0"),
        ({"README.md": "# A model\nlicense: in the text, which is no header\n"}, None),
        ({"README.md": "---\nlicense: a b\n---\n", "LICENSE": "words"}, "see LICENSE beside the weights"),
    ],
)
def test_the_licence_is_what_the_files_say(files: dict[str, str], licence: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert find_licence(tmp_path) == licence
