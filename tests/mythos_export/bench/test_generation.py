"""The generation benchmark: what it counts, and that its page and its numbers say the same. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from engines import needs_native
from golden_bundles import Bundles

from mythos_export.bench.generation import loads
from mythos_export.bench.generation.schedules import ByDepth, Native
from mythos_export.cli import mythos
from mythos_export.errors import BenchError
from mythos_runtime import read_manifest
from mythos_runtime.engine.native import why_no_native_engine
from mythos_runtime.engine.options import MAX_LAG


def test_planted_depths() -> None:
    assert loads.alternating(9).depths(0, 5) == (2, 9, 2, 9, 2)
    mixed = loads.mixed(9)
    assert set(np.unique(mixed.rows)) == {2, 9}
    assert mixed.rows.mean() == pytest.approx(2 + 0.1 * 7, abs=0.1)
    assert mixed.depths(0, 50) != mixed.depths(1, 50)
    assert mixed.depths(3, 50) == loads.mixed(9).depths(3, 50)


def test_a_model_of_few_loops_has_few_loads() -> None:
    for deepest, count in ((1, 1), (2, 2), (3, 5), (8, 6)):
        planted = loads.planted(deepest)
        assert len({load.name for load in planted}) == len(planted) == count
        assert max(load.rows.max() for load in planted) == deepest


def test_recorded_depths(bundles: Bundles, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    command = [
        "run",
        str(bundles["mla_decode"]),
        "--ids",
        "1,2,3",
        "--max-new-tokens",
        "6",
        "--depth-trace",
        str(trace),
    ]
    assert CliRunner().invoke(mythos, command).exit_code == 0
    written = json.loads(trace.read_text())["requests"][0]["depth"]
    found = loads.recorded(trace, 8)
    assert found.depths(0, 6) == tuple(written)
    with pytest.raises(BenchError, match=r"depths from \d to \d; this bundle runs 1 to 1 loops"):
        loads.recorded(trace, 1 if max(written) > 1 else 0)
    trace.write_text("{}")
    with pytest.raises(BenchError, match="expected what mythos run --depth-trace writes"):
        loads.recorded(trace, 8)


def test_schedules_do_the_same_work(bundles: Bundles) -> None:
    bundle = bundles["mla_decode"]
    manifest = read_manifest(bundle)
    deepest = manifest.spec.trained_loops
    engine = ByDepth(bundle, manifest, 1)
    prompts = np.random.default_rng(0).integers(0, manifest.spec.vocab_size, (3, 5))
    lazy = engine.run(prompts, 4, loads.constant(1))
    full = engine.run(prompts, 4, loads.constant(1), "full")
    assert lazy.tokens == full.tokens == 12
    assert lazy.depth == full.depth == 1
    steps = [sum(rows for graph, rows, _ in run.calls if graph == "step") for run in (lazy, full)]
    assert steps[1] >= deepest * steps[0] - 3 * deepest  # the last tokens' deeper loops may not have come yet
    assert lazy.late == 0
    assert full.late > 0
    assert sum(seconds for *_, seconds in full.calls) <= full.seconds


@needs_native
def test_the_native_engine(bundles: Bundles) -> None:
    bundle = bundles["mla_decode"]
    spec = read_manifest(bundle).spec
    prompts = np.random.default_rng(0).integers(0, spec.vocab_size, (3, 5))
    engine = Native(bundle, spec, 1)
    made = engine.run(prompts, 4, loads.alternating(5), MAX_LAG)
    assert 12 <= made.tokens <= 14 and made.seconds > 0  # the last tick's may come together
    assert 2 < made.depth < 5
    assert 12 <= engine.run(prompts, 4, None, None).tokens <= 14


def test_a_report(bundles: Bundles, tmp_path: Path) -> None:
    command = [
        "bench",
        str(bundles["mla_decode"]),
        "--generation",
        "--quick",
        "--rounds",
        "1",
        "--turn",
        "0",
        "--threads",
        "1",
    ]
    done = CliRunner().invoke(mythos, [*command, "-o", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "generation.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == document
    deepest = document["trained_loops"]
    names = [row["load"] for row in document["one"]]
    assert f"every token {deepest} deep" in names
    assert f"10 % of tokens {deepest} deep, the others 2" in names
    assert {row["sequences"] for row in document["many"]} == {1, 8}
    for row in (*document["one"], *document["many"]):
        if row["load"] == f"every token {deepest} deep":
            assert row["lazy"]["mean_depth"] == row["full"]["mean_depth"] == deepest
            assert row["lazy"]["late_share"] == 0
        if row["load"] == "every token 2 deep":
            assert row["lazy"]["mean_depth"] == row["full"]["mean_depth"] == 2
            assert row["full"]["late_share"] > 0
        assert row["lock-step"]["mean_depth"] == deepest
        assert row["lazy"]["limit_seconds_per_token"] > 0
        assert row["lazy"]["pages"] > 0
        if why_no_native_engine() is None:
            assert row["lazy, native"]["times_lock_step"]["median"] > 0
    page = (tmp_path / "generation.html").read_text()
    assert ("the native engine gives" in page) == (why_no_native_engine() is None)
    for name in names:
        assert name in page
    assert "mythos bench mla_decode --generation" in page


def test_what_cannot_be_timed(bundles: Bundles, tmp_path: Path) -> None:
    done = CliRunner().invoke(mythos, ["bench", str(bundles["shipped hops"]), "--generation", "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert "answers with at most 1 tokens" in done.output
    done = CliRunner().invoke(mythos, ["bench", str(bundles["shipped hops"]), "--depth-trace", "x"])
    assert "--depth-trace belongs to --generation" in done.output
    done = CliRunner().invoke(mythos, ["bench", "x", "--generation", "--capacity", "9"])
    assert "--capacity does not go with --generation" in done.output
    assert not list(tmp_path.iterdir())
