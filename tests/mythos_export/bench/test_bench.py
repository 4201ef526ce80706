"""A whole small run: workers, rounds, failures that stay with whoever failed, the document, the page, the command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles

from mythos_export.bench.document import _against_limits
from mythos_export.bench.model_cost import GraphCost
from mythos_export.bench.report import read_report, write_report
from mythos_export.bench.rounds import WRONG
from mythos_export.bench.run import BenchOptions, bench
from mythos_export.bench.workloads import Workload, matrix
from mythos_export.cli import mythos
from mythos_export.errors import BenchError
from mythos_runtime import read_manifest
from mythos_runtime.manifest import PRECISIONS

DECODE = [Workload("decode", 1, 20, 1, depth) for depth in (1, 2, 4)]
PREFILL = Workload("prefill", 16, 0, 2, None)
IDS = GOLDEN / "hops" / "io.safetensors"


@pytest.fixture(scope="module")
def document(bundles: Bundles) -> dict[str, Any]:
    strange = tuple(f"strange_backends:{name}" for name in ("Wrong", "Picky", "Uncompiled"))
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    options = BenchOptions(
        threads=1,
        rounds=2,
        turn_seconds=0.01,
        backends=("tensorrt", "bodies", *strange),
        workloads=(*DECODE, PREFILL),
        ids=IDS,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        return bench(bundles["hops"], options)


def test_every_row_says_how_long_how_sure_and_how_near_to_the_limit(document: dict[str, Any]) -> None:
    rows = [row for row in document["rows"] if row["backend"] == "ONNX Runtime, function bodies"]
    assert [row["workload"] for row in rows] == [w.name for w in (*DECODE, PREFILL)]
    for row in rows:
        assert 0 < row["interval"]["low"] <= row["median"] <= row["interval"]["high"]
        assert row["ratio"] == 1.0 and row["rounds"] == 2 and row["calls"] >= 4
        assert row["fraction_of_limit"] == row["limit_seconds"] / row["median"] > 0
        assert row["bound_by"] in ("reading", "multiplying")
        assert row["tokens_per_second"] * row["median"] == pytest.approx(32 if row is rows[-1] else 1)
        assert row["peak_bytes"] > 10_000_000
    assert [row["loops"] for row in rows[:3]] == [1, 2, 4]
    assert 1 < rows[3]["loops"] <= 10  # halting on, questions that it was trained for
    machine, limits = document["machine"], document["limits"]
    assert machine["threads"] == 1 and len(machine["pinned_to_cores"]) == 1 and machine["memory_bytes"] > 0
    bodies = next(c for c in document["contestants"] if c["name"] == rows[0]["backend"])
    assert bodies["first_token_seconds"][PREFILL.name] > bodies["start_seconds"] > bodies["load_seconds"] > 0
    assert limits["product"]["flops_per_second"] > 1e8 and len(limits["read"]) == 5


def test_a_failure_stays_with_whoever_failed(document: dict[str, Any]) -> None:
    found = {c["name"]: c for c in document["contestants"]}
    tensorrt = next(c for c in document["contestants"] if c["source"].endswith(":TensorRT"))
    assert tensorrt["state"] == "missing" and "no TensorRT engine" in tensorrt["reason"]
    assert set(found["wrong"]["failed_workloads"]) == {w.name for w in (*DECODE, PREFILL)}
    assert "differ from the first" in found["wrong"]["failed_workloads"][PREFILL.name]
    picky = found["picky"]["failed_workloads"]
    assert picky[PREFILL.name] == "ValueError: prefill is not for me"
    assert all("left with exit status 7" in picky[w.name] for w in DECODE)
    uncompiled = found["uncompiled"]
    assert set(uncompiled["failed_workloads"]) == {w.name for w in DECODE}
    assert "no decode yet" in uncompiled["failed_workloads"][DECODE[0].name]
    assert "first_token_seconds" not in uncompiled  # its only start was one of many at once
    assert uncompiled["compiled"][PREFILL.name]["note"] == "by hand"
    assert {row["backend"] for row in document["rows"]} == {"ONNX Runtime, function bodies", "uncompiled"}


def test_what_was_not_measured_is_no_limit(document: dict[str, Any], bundles: Bundles) -> None:
    cost = GraphCost(bundles["hops"] / "model.onnx")
    for precision, device, bound in (("fp16", "cpu", "reading"), ("fp32", "cuda", None)):
        row = {"median": 1.0, "loops": 4}
        _against_limits(row, DECODE[2], cost, precision, document["limits"], device)
        assert row["bound_by"] == bound and (row["fraction_of_limit"] is None) == (bound is None)
        assert row["limit_note"] and row["bytes"] > 0
    row = {"median": 1.0, "loops": 4}
    _against_limits(row, DECODE[2], None, "fp32", document["limits"], "cpu")
    assert row["fraction_of_limit"] is None and "no ONNX graph" in str(row["limit_note"])
    assert set(WRONG) == set(PRECISIONS)


def test_depth_and_breakdown_are_in_the_document(document: dict[str, Any]) -> None:
    (line,) = document["depth_lines"]
    assert [point[0] for point in line["points"]] == [1, 2, 4] and line["per_loop"]["median"] > 0
    for profile in document["breakdown"]:
        assert sum(cell["share"] for cell in profile["cells"]) == pytest.approx(1)
    assert "Decode 20, batch 1" in document["verdict"]
    assert document["model"]["spec"]["trained_loops"] == document["model"]["trained_loops"] == 10
    assert document["model"]["parameters"] > document["model"]["active_parameters_per_loop"] > 0


def test_the_page_stands_alone_and_the_bundle_stays_valid(
    document: dict[str, Any], bundles: Bundles, tmp_path: Path
) -> None:
    folder = bundles["hops"] / "reports"
    json_file, page = write_report(document, folder)
    try:
        assert read_report(folder) == read_report(json_file) == json.loads(json.dumps(document))
        text = page.read_text()
        assert "prefill is not for me" in text and text.count("<svg") >= 3 and "<script" not in text
        read_manifest(bundles["hops"])  # hashes everything
        compared = CliRunner().invoke(mythos, ["bench", "--compare", str(json_file), str(json_file), "--json"])
        assert compared.exit_code == 0
        changes = json.loads(compared.stdout.splitlines()[-1])
        assert len(changes) == len(document["rows"])
        assert {change["verdict"] for change in changes} == {"cannot tell: too few rounds"}  # two rounds
    finally:
        json_file.unlink()
        page.unlink()
    with pytest.raises(BenchError, match="cannot read the report"):
        read_report(tmp_path)
    (tmp_path / "latency.json").write_text("{}")
    with pytest.raises(BenchError, match="not a latency report"):
        read_report(tmp_path)


def test_the_matrix_holds_what_the_model_takes(bundles: Bundles) -> None:
    spec = read_manifest(bundles["hops"]).spec
    workloads, left_out = matrix(spec)
    assert {w.tokens for w in workloads if w.kind == "prefill"} == {16, 128}
    assert {w.held for w in workloads if w.kind == "decode"} == {127}
    assert {w.depth for w in workloads if w.batch == 4} == {1, 10, None}
    assert {w.depth for w in workloads if w.batch == 1} >= {1, 5, 10, 15, None}
    assert len(set(workloads)) == len(workloads)
    assert any("prefill of 512" in text for text in left_out) and any("after 1024" in text for text in left_out)
    assert all(w.batch == 1 for w in matrix(spec, quick=True)[0])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], 2, "give either a BUNDLE"),
        (["{bundle}", "--backends", "warp"], 2, "there is no backend 'warp'"),
        (["{bundle}", "--ids", "nowhere.safetensors"], 2, "expected a safetensors file"),
        (["{bundle}", "--backends", "tensorrt"], 3, "no backend of this bundle runs here"),
        (["{bundle}", "--ids", "{bundle}/manifest.json"], 2, "expected a safetensors file"),
        (["{bundle}", "-o", "{bundle}/manifest.json/reports"], 2, "cannot write "),
        (["nowhere"], 2, "does not exist"),
        (["--compare", "a.json", "b.json"], 2, "cannot read the report"),
    ],
)
def test_mistakes_are_one_line(bundles: Bundles, arguments: list[str], code: int, text: str) -> None:
    result = CliRunner().invoke(mythos, ["bench", *(a.format(bundle=bundles["hops"]) for a in arguments)])
    assert result.exit_code == code
    assert text in " ".join(result.output.split())
