"""`loops.onnx`, made of `step.onnx`: what is in the Loop, what is not, and what cannot be put into one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from golden_bundles import Bundles
from onnx import helper

from mythos_export.errors import LowerError
from mythos_export.step_in_loop import write_loops
from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime import read_manifest
from mythos_runtime.row_ports import LOOPS_FILE, STEP, loop_ports


def test_what_is_the_same_in_every_loop_is_computed_once(bundles: Bundles) -> None:
    graph = onnx.load(bundles["mla_decode"] / LOOPS_FILE, load_external_data=False).graph
    step = onnx.load(bundles["mla_decode"] / "step.onnx", load_external_data=False).graph
    body = body_of(loop_of(graph))
    once = [node.op_type for node in graph.node if node.op_type != "Loop"]
    around = {"GreaterOrEqual": 1, "Where": 1}
    added = {"Gather": 2, "Add": 3, "And": 1, "Cast": 2, "ReduceMax": 1, "Not": 1} | around
    assert len(once) + len(body.node) == len(step.node) + sum(added.values())
    assert once.count("Gather") >= 2  # the angles of the rows' positions
    assert not any("rotary_cos" in node.input for node in body.node)
    paged = [node for node in body.node if node.op_type.startswith("paged_")]
    assert paged and all(node.op_type == "paged_mla_attention_" and len(node.output) == 1 for node in paged)


def test_its_weights_are_the_same_pieces_of_the_same_file(bundles: Bundles) -> None:
    found, expected = (
        {
            tensor.name: sorted((entry.key, entry.value) for entry in tensor.external_data)
            for tensor in onnx.load(bundles["gqa_decode"] / name, load_external_data=False).graph.initializer
            if tensor.external_data
        }
        for name in (LOOPS_FILE, "step.onnx")
    )
    assert found == expected and len(found) > 5


def _named(name: str) -> Callable[[onnx.GraphProto], None]:
    return lambda graph: graph.node.append(helper.make_node("Identity", [graph.input[0].name], [name]))


def _branch(graph: onnx.GraphProto) -> None:
    inner = helper.make_graph([helper.make_node("Identity", ["h"], ["twice"])], "inner", [], [graph.input[0]])
    graph.node.append(helper.make_node("If", ["last"], ["chosen"], then_branch=inner, else_branch=inner))


def _reader(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Identity", ["cache_0_next"], ["again"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            (_named(name), f"is called {name}, as one of the step in a Loop is")
            for name in ("ran", "loop/h", "loops/one")
        ),
        (_branch, "holds If, a node with a graph of its own"),
        (_reader, "Identity reads a cache that the step has written"),
    ],
)
def test_what_cannot_be_put_into_a_loop_is_refused(
    change: Callable[[onnx.GraphProto], None], words: str, bundles: Bundles, tmp_path: Path
) -> None:
    bundle = bundles["gqa_decode"]
    model = onnx.load(bundle / "step.onnx", load_external_data=False)
    change(model.graph)
    onnx.save(model, tmp_path / "step.onnx")
    with pytest.raises(LowerError, match=words):
        write_loops(tmp_path / "step.onnx", read_manifest(bundle).spec.graphs[STEP])
    assert not (tmp_path / LOOPS_FILE).exists()


def test_ports_say_what_differs_from_loop_to_loop(bundles: Bundles) -> None:
    ports = loop_ports(read_manifest(bundles["mla_decode"]).spec.graphs[STEP])
    assert [str(port) for port in ports.inputs[:3]] == ["loops int64 []", "spans int64 []", "stops bool [R]"]
    assert ports.of("tables").dims == ("T", "K") and ports.of("last").dims == ("L", "R")
    assert ports.of("loop").dims == ("R",) and not any(port.role == "cache_next" for port in ports.outputs)
    assert str(ports.outputs[-1]) == "ran int64 []"
