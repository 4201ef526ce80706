"""What `mythos inspect` says of targets that were built and not executed, and of damage."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from golden_bundles import Bundles

from mythos_runtime import read_manifest
from mythos_runtime.cli import mythos
from mythos_runtime.cli.show import show_bundle
from mythos_runtime.manifest import NOT_EXECUTED, NOT_VERIFIED, VERIFIED, Target

ENGINE = {"file": "engines/x.engine", "plugins": True}


@pytest.mark.parametrize(
    ("name", "details", "said"),
    [
        ("cuda", {"architectures": ["sm_90"]}, "run on the CPU and compared. But no compiled kernel was executed"),
        ("tensorrt", {"engines": [ENGINE]}, "bodies stood in for the plug-ins, which have not run"),
        (
            "tensorrt",
            {"engines": [ENGINE], "row_engines": []},
            "the plug-ins, in the whole model's engine alone, which",
        ),
        ("toy", {}, "What was built for toy was not executed."),
    ],
)
def test_what_ran_and_what_did_not(
    name: str, details: dict[str, Any], said: str, bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of TensorRT where there is none; nothing compared where verification was put off."""
    manifest = read_manifest(bundles["mla_prefill"])
    for state in (VERIFIED, NOT_VERIFIED):
        targets = (Target("onnx", state, (), {}), Target(name, NOT_EXECUTED, (), details))
        show_bundle(bundles["mla_prefill"], replace(manifest, targets=targets))
        shown = " ".join(capsys.readouterr().out.split())
        assert (said in shown) == (state == VERIFIED or not details), shown
        assert ("TensorRT" in shown) == (name == "tensorrt" and state == VERIFIED)
        assert state == VERIFIED or ("and compared." not in shown and "In that comparison" not in shown)


def test_sizes_and_operators_are_told_in_full_on_a_narrow_terminal(
    bundles: Bundles, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators once, and again only in a row that not all of them share."""
    monkeypatch.setenv("COLUMNS", "80")
    manifest = read_manifest(bundles["mla_decode"])
    show_bundle(bundles["mla_decode"], manifest)
    shown = capsys.readouterr().out
    assert "…" not in shown and "(0.0 " not in shown and " kB)" in shown
    assert shown.count("act_halting") == 1, shown
    first, *rest = manifest.operators
    runner = next(iter(manifest.operators[first]))
    other = {**manifest.operators, first: {**manifest.operators[first], runner: {"order": ["something else"]}}}
    show_bundle(bundles["mla_decode"], replace(manifest, operators=other))
    row = next(line for line in capsys.readouterr().out.splitlines() if "something else" in line)
    assert first.removeprefix("mythos::") in row


def test_sizes_alone_are_compared_where_asked(bundles: Bundles, tmp_path: Path) -> None:
    """And damage that leaves the size is not seen."""
    copy = tmp_path / "copy"
    shutil.copytree(bundles["mla_decode"], copy)
    data = bytearray((copy / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(data)

    def code(*options: str) -> int:
        return CliRunner().invoke(mythos, ["inspect", str(copy), *options]).exit_code

    assert (code(), code("--verify", "hashes"), code("--verify", "sizes")) == (2, 2, 0)


def test_a_damaged_bundle_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    for name, damage in (
        ("weights.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("weights.safetensors", lambda path: path.unlink()),
        ("manifest.json", lambda path: path.write_text(path.read_text()[:-20])),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace('"model.onnx"', '"../model.onnx"'))),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace('_version": 2', '_version": 99'))),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(bundles["mla_decode"], copy)
        damage(copy / name)
        result = CliRunner().invoke(mythos, ["inspect", str(copy)])
        assert (result.exit_code, "Traceback" in result.output) == (2, False), result.output
        shutil.rmtree(copy)
