"""ONNX Runtime's profile folded into regions and parts; a slowdown planted in an operator shows in its row."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from golden_bundles import Bundles
from onnx import TensorProto, helper

from mythos_export.bench.backends.backend import port_arrays
from mythos_export.bench.breakdown import Breakdown, fold, mark_parts, profile
from mythos_export.bench.workloads import Case, Workload
from mythos_export.errors import BenchError
from mythos_runtime import read_manifest
from mythos_runtime.cache import empty_past


def event(name: str, ts: int, dur: int, op: str = "", cat: str = "Node") -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"op_name": op}}


def test_a_recorded_profile_is_folded_by_time_and_by_name() -> None:
    call = [
        event("model_run", 0, 100, cat="Session"),
        event("attention@node_linear_0_kernel_time", 0, 10, "MatMul"),
        event("feed-forward@node_silu_1/QuickGeluFusion/_kernel_time", 10, 5, "QuickGelu"),
        event("rest@node_while_2_kernel_time", 20, 60, "Loop"),
        event("_inlfunc_moe_experts@Gather_3/GatherSliceToSplitFusion_kernel_time", 21, 30, "Split"),
        event("anything_kernel_time", 55, 15, "mla_attention"),
        event("Squeeze_token_6_kernel_time", 72, 1, "Squeeze"),
        event("embedding_and_head@node_linear_9_kernel_time", 85, 12, "MatMul"),
    ]
    found = fold(call)
    assert {key: round(value * 1e6) for key, value in found.seconds.items() if value} == {
        ("prelude", "attention"): 10,
        ("prelude", "feed-forward"): 5,
        ("prelude", "between operators"): 5,
        ("loop", "attention"): 15,
        ("loop", "experts"): 30,
        ("loop", "rest"): 1,
        ("loop", "between operators"): 14,
        ("coda", "embedding and head"): 12,
        ("coda", "between operators"): 8,
    }
    assert sum(found.seconds.values()) == pytest.approx(found.total)


def test_profiles_without_a_call_or_a_loop_are_refused() -> None:
    with pytest.raises(BenchError, match="no call"):
        fold([])
    with pytest.raises(BenchError, match="without a Loop"):
        fold([event("model_run", 0, 10, cat="Session"), event("x", 1, 2, "MatMul")])


def test_every_branch_of_the_graph_is_found(bundles: Bundles) -> None:
    model = onnx.load(bundles["hops"] / "model.onnx", load_external_data=False)
    mark_parts(model, read_manifest(bundles["hops"]).spec)
    body = next(n for n in model.graph.node if n.op_type == "Loop").attribute[0].g
    parts = {(node.op_type, node.name.partition("@")[0]) for node in body.node}
    assert ("mla_attention", "attention") in parts and ("moe", "experts") in parts and ("TopK", "experts") in parts
    assert ("ScatterND", "rest") in parts and ("act_halting", "rest") in parts  # the cache entries, the halting
    assert sum(node.name.startswith("attention@") for node in body.node if node.op_type == "MatMul") == 5
    main = [node.name.partition("@")[0] for node in model.graph.node if node.op_type == "MatMul"]
    layers = 2  # one of prelude, one of coda
    assert main.count("attention") == 5 * layers and main.count("feed-forward") == 3 * layers
    assert main.count("embedding_and_head") == 1


def plant(folder: Path, copy: Path, operator: str) -> Path:
    """A copy of the bundle's graph whose function body of `operator` also takes sines of half a million numbers."""
    copy.mkdir()
    shutil.copyfile(folder / "weights.safetensors", copy / "weights.safetensors")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    function = next(f for f in model.functions if f.name == operator)
    data = function.input[0]  # depends on data, so that it is not folded
    small = helper.make_tensor("small", TensorProto.FLOAT, [1], [1e-30])
    nodes = [
        helper.make_node("Constant", [], ["planted_shape"], value_ints=[500_000]),
        helper.make_node("Constant", [], ["planted_small"], value=small),
        helper.make_node("ReduceMax", [data], ["planted_max"], keepdims=0),
        helper.make_node("Expand", ["planted_max", "planted_shape"], ["planted_0"]),
        *(helper.make_node("Sin", [f"planted_{i}"], [f"planted_{i + 1}"]) for i in range(4)),
        helper.make_node("ReduceMax", ["planted_4"], ["planted_least"]),
        helper.make_node("Mul", ["planted_least", "planted_small"], ["planted_nothing"]),
        helper.make_node("Add", ["out_before", "planted_nothing"], ["out"]),
    ]
    for node in function.node:
        node.output[:] = ["out_before" if name == "out" else name for name in node.output]
    function.node.extend(nodes)
    onnx.save(model, copy / "model.onnx")
    return copy / "model.onnx"


@pytest.mark.parametrize(("operator", "part"), [("moe", "experts"), ("mla_attention", "attention")])
def test_a_planted_slowdown_shows_in_its_row(bundles: Bundles, tmp_path: Path, operator: str, part: str) -> None:
    folder = bundles["hops"]
    spec = read_manifest(folder).spec
    case = Case(Workload("decode", 1, 8, 1, 3), np.array([[1]]), empty_past(spec, 1, 8, 3), loops=3, capacity=9)
    ports = port_arrays(case, spec)

    def shown(graph: Path) -> Breakdown:
        return profile(graph, spec, ports, None, threads=1, calls=4)

    before, after = shown(folder / "model.onnx"), shown(plant(folder, tmp_path / "planted", operator))
    grown = {key: after.seconds[key] - before.seconds.get(key, 0.0) for key in after.seconds}
    assert max(grown, key=lambda key: grown[key]) == ("loop", part)
    # moe runs in the loop alone, the attention in prelude and coda as well: there it grew, too.
    elsewhere = ("prelude", part)
    assert (elsewhere in grown and grown[elsewhere] > 0) == (part == "attention")
