"""Every family is timed at as many loops as were asked for, whichever way its exit rule compares, or without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from family_bundles import FamilyBundles
from golden_bundles import Bundles
from small_spec import spec as small_spec

from mythos_export.bench.backends.backend import Setting, port_arrays
from mythos_export.bench.backends.onnxruntime import FunctionBodies
from mythos_export.bench.forced import never
from mythos_export.bench.workloads import Workload, load_case, matrix, write_inputs
from mythos_export.cli import mythos
from mythos_runtime import load, read_manifest
from mythos_runtime.engine.native import why_no_native_engine
from mythos_runtime.spec import ExitRule, Knob

# A rule that waits for a change to fall, and none; both draw a first state. Elsewhere OpenMythos is commanded.
COMMANDED = ("huginn_decode", "parcae_decode")
FORCED = [
    Workload(*call, depth)
    for call in (("prefill", 5, 0, 2), ("prefill", 5, 0, 1), ("decode", 1, 9, 2))
    for depth in (1, 3)
]
SHORT = ["--quick", "--rounds", "1", "--turn", "0", "--threads", "1", "--json"]


def commanded(*arguments: str) -> dict[str, Any]:
    """The document of `mythos bench`."""
    done = CliRunner().invoke(mythos, ["bench", *arguments, *SHORT])
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


class Stub:
    """A model whose tokens all leave in the first loop, or all in the last."""

    def __init__(self, leaves: Callable[[float], bool], *knobs: Knob) -> None:
        self.leaves, self.spec = leaves, replace(small_spec(), exit=ExitRule("toy", "", knobs))

    def forward(self, ids: np.ndarray, *, max_loops: int, halt_threshold: float) -> Any:
        depth = 1 if self.leaves(halt_threshold) else max_loops
        return type("Output", (), {"depth": np.full((1, len(ids)), depth, np.int32)})


@pytest.mark.parametrize(
    ("leaves", "least", "most", "found"),
    [
        (lambda threshold: threshold <= 0.7, None, None, np.inf),  # a sum that reaches it
        (lambda threshold: threshold > 0.7, None, None, -np.inf),  # a change that is below it
        (lambda threshold: threshold <= 0.7, 0.0, 1.0, 1.0),
        (lambda threshold: threshold > 0.7, 0.0, 1.0, 0.0),
        (lambda threshold: threshold > 0.7, None, 0.5, 0.5),
    ],
)
def test_never_is_the_end_of_the_range_at_which_tokens_stay(
    leaves: Callable[[float], bool], least: float | None, most: float | None, found: float
) -> None:
    model: Any = Stub(leaves, Knob("halt_threshold", 0.5, least, most, ""))
    assert never(model) == found
    unhalted: Any = Stub(leaves)
    assert never(unhalted) is None


@pytest.mark.parametrize("name", ["mla_decode", "ouro_exit_decode", *COMMANDED, "nanbeige_decode"])
def test_as_many_loops_run_as_were_asked_for(
    name: str, bundles: Bundles, family_bundles: FamilyBundles, tmp_path: Path
) -> None:
    """In our runtime, and in the graph alone, as peers and profiles call it."""
    bundle = (bundles if name == "mla_decode" else family_bundles)[name]
    model = load(bundle, threads=1, verify="sizes", op_library=None, engine="python")
    spec, inputs = model.spec, tmp_path / "inputs.npz"
    write_inputs(model, FORCED, inputs)
    backend = FunctionBodies()
    backend.load(Setting(bundle, None, 1, tmp_path))
    for workload in FORCED:
        case = load_case(inputs, workload, spec.trained_loops)
        found = backend.prepare(case)()
        alone = model.session.run(port_arrays(case, spec))
        assert found.loops == alone[spec.ports.of("loops").name] == workload.depth
        assert (alone[spec.ports.of("depth").name] == workload.depth).all()
        logits = alone[spec.ports.of("logits").name][:, -1]
        np.testing.assert_allclose(found.logits, logits, atol=1e-4 * np.abs(logits).max())
    as_trained = load_case(inputs, replace(FORCED[0], depth=None), spec.trained_loops)
    assert as_trained.threshold is None and as_trained.loops == spec.trained_loops
    assert backend.prepare(as_trained)().loops == model.session.run(port_arrays(as_trained, spec))["loops"]


def test_halting_is_timed_where_there_is_any(family_bundles: FamilyBundles) -> None:
    halts, never_halts = (read_manifest(family_bundles[name]).spec for name in ("huginn_decode", "parcae_decode"))
    for quick in (False, True):
        assert None in {workload.depth for workload in matrix(halts, quick=quick)[0]}
        workloads, left_out = matrix(never_halts, quick=quick)
        assert workloads and None not in {workload.depth for workload in workloads}
        assert any(text.startswith("halting on: no token") and never_halts.exit.meaning in text for text in left_out)


@pytest.mark.parametrize("name", COMMANDED)
def test_the_command(name: str, family_bundles: FamilyBundles, tmp_path: Path) -> None:
    document = commanded(str(family_bundles[name]), "--backends", "bodies", "-o", str(tmp_path))
    depths = {workload["name"]: workload["depth"] for workload in document["workloads"]}
    assert {row["workload"] for row in document["rows"]} == set(depths)
    for row in document["rows"]:
        assert row["loops"] == depths[row["workload"]] or depths[row["workload"]] is None
    trained = document["model"]["trained_loops"]
    assert {trained, trained + trained // 2} < set(depths.values())
    assert document["breakdown"] and not document["breakdown_failed"]
    assert not any(contestant["failed_workloads"] for contestant in document["contestants"])


@pytest.mark.parametrize("name", COMMANDED)
def test_generation(name: str, family_bundles: FamilyBundles, tmp_path: Path) -> None:
    bundle = str(family_bundles[name])
    document = commanded(bundle, "--generation", "-o", str(tmp_path))
    deepest, halts = document["trained_loops"], read_manifest(family_bundles[name]).spec.exit.knobs
    names = {row["load"] for row in document["one"]}
    if halts:
        assert {f"every token {depth} deep" for depth in (1, 2, deepest)} < names
    else:
        assert names == {f"every token {deepest} deep"} and not document["hard_tokens"]
        trace = CliRunner().invoke(mythos, ["bench", bundle, "--generation", "--depth-trace", "x", *SHORT])
        assert trace.exit_code == 2 and "not chosen token by token" in " ".join(trace.output.split())
    schedules = {"lazy", "full"} | ({"lazy, native"} if why_no_native_engine() is None else set())
    for row in (*document["one"], *document["many"]):
        assert row["lock-step"]["mean_depth"] == deepest
        if row["load"].startswith("every token"):
            wanted = int(row["load"].split()[2])
            assert {row[schedule]["mean_depth"] for schedule in schedules} == {wanted}, row["load"]
