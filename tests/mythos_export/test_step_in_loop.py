"""`loops.onnx`, made of `step.onnx`: what is in the Loop, what is not, and what cannot be put into one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from family_bundles import FamilyBundles
from golden_bundles import Bundles
from onnx import helper

from mythos_export.errors import LowerError
from mythos_export.step_in_loop import _sparing, write_loops
from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime import read_manifest
from mythos_runtime.op_library import find_op_library
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.row_ports import LOOPS_FILE, STEP, loop_ports


def test_what_is_the_same_in_every_loop_is_computed_once(bundles: Bundles) -> None:
    graph = onnx.load(bundles["mla_decode"] / LOOPS_FILE, load_external_data=False).graph
    step = onnx.load(bundles["mla_decode"] / "step.onnx", load_external_data=False).graph
    body = body_of(loop_of(graph))
    once = [node.op_type for node in graph.node if node.op_type != "Loop"]
    added = ["GreaterOrEqual", "Where", "loop_knobs", "loop_goes_on"]
    assert len(once) + len(body.node) == len(step.node) + len(added)
    assert once[-2:] == added[:2] and [body.node[0].op_type, body.node[-1].op_type] == added[2:]
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


def test_operators_behind_the_last_entry_are_told_who_is_idle() -> None:
    """Those before it compute what the entry is made of."""
    told = ["halted", "last", "halt_threshold"]
    first = helper.make_node("paged_gqa_attention", ["q", "e", "cache_0", "t", "s", "p"], ["y", "cache_0_next"])
    experts = helper.make_node("moe", ["y", "i", "w", "g", "d", "sg", "sd"], ["z"])
    second = helper.make_node("paged_gqa_attention", ["z", "f", "cache_1", "t", "s", "p"], ["h", "cache_1_next"])
    last = helper.make_node("moe", ["h", "i", "w", "g", "d", "sg", "sd"], ["h_next"])
    spared = _sparing([first, experts, second, last], told)
    assert [list(node.input) for node in spared[:2]] == [list(first.input), list(experts.input)]
    assert list(spared[2].input) == [*second.input, *told]
    assert list(spared[3].input) == [*last.input, "", "", "", "", *told]


def test_portable_bodies_are_told_nothing() -> None:
    experts = helper.make_node("moe", ["h", "i", "w", *"abcdefgh"], ["h_next"], format="fp8")
    assert list(_sparing([experts], ["halted", "last", "halt_threshold"])[0].input) == list(experts.input)


@pytest.mark.parametrize("name", ["mla_decode", "gqa_decode", "gqa_decode, int8", "ouro_exit_threshold"])
def test_of_an_idle_row_only_the_cache_entries_are_computed(
    name: str, bundles: Bundles, family_bundles: FamilyBundles
) -> None:
    """Of every layer in the loop. Its answer stays, and all other rows have the bits of the step; where its loop is the
    last by a cap, it does, too."""
    library = find_op_library()
    if library is None:
        pytest.skip("the native operators are not built: make native")
    bundle = family_bundles[name] if name.startswith("ouro") else bundles[name]
    spec = read_manifest(bundle).spec
    ports = spec.graphs[STEP]
    r = np.random.default_rng(0)
    sizes = {"R": 5, "S": 1, "K": 1, "G": 1}
    given = {
        "halted": np.array([True, True, True, False, False]),
        "last": np.array([True, False, True, True, False]),
        "halt_threshold": np.float32([0.9, 0.9, -np.inf, 0.9, 0.9]),
        "loop": np.full(5, 1),
        "position": np.arange(5),
        "span": np.zeros(5, np.int64),
        "tables": np.zeros((1, 1), np.int64),
    }
    feeds = {}
    for port in ports.inputs:
        shape = [dim if isinstance(dim, int) else sizes[dim] for dim in port.dims]
        value = given.get(port.group if port.role == "state" else port.role)
        drawn = np.abs(r.standard_normal(shape)) / 4 if value is None else value
        feeds[port.name] = drawn.astype(numpy_dtype(port.dtype))
    of_loop = {port: np.array(1) for port in ("loops", "spans")} | {"stops": np.zeros(5, bool)}
    of_loop |= {role: feeds[role][None] for role in ("last", "halt_threshold")}

    def run(file: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        options = ort.SessionOptions()
        options.register_custom_ops_library(str(library))
        session = ort.InferenceSession(bundle / file, options, providers=["CPUExecutionProvider"])
        feeds = {port: value.copy() for port, value in feeds.items()}
        found = dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))
        return found | {port: value for port, value in feeds.items() if port.startswith("cache") and "ran" in found}

    stepped, looped = run("step.onnx", feeds), run(LOOPS_FILE, feeds | of_loop)
    for port in (port for port in ports.inputs if port.role == "cache"):
        np.testing.assert_array_equal(looped[port.name], stepped[f"{port.name}_next"])
    stays = (spec.state[1].name, "halted", "depth")
    for port in (port for port in ports.outputs if port.role == "state_next"):
        rows = slice(None) if port.group in stays else slice(1, None)
        np.testing.assert_array_equal(looped[port.name][rows], stepped[port.name][rows])
    assert not np.allclose(looped["h_next"][0], stepped["h_next"][0])


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
