"""Defects to plant into an ONNX graph, each the mistake of a lowering that somebody could make.

A defect changes a model in place and raises where the graph has no such spot, so that none is planted in vain.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mythos_export.verify.twin import body_of, loop_of
from mythos_runtime.files import describe
from mythos_runtime.manifest import read_manifest, write_manifest

Defect = Callable[[ModelProto], None]


def nodes_of(model: ModelProto):  # type: ignore[no-untyped-def]
    """The nodes of the loop's body."""
    return body_of(loop_of(model.graph)).node


def after(model: ModelProto, name: str, *made: NodeProto) -> None:
    """Insert nodes into the body behind the one that computes `name`; the last of them takes its place."""
    nodes = nodes_of(model)
    index = next(i for i, node in enumerate(nodes) if name in node.output)
    for node in nodes:
        for position, value in enumerate(node.input):
            if value == name:
                node.input[position] = made[-1].output[0]
    for offset, node in enumerate(made):
        nodes.insert(index + 1 + offset, node)


def constant(name: str, value: object) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.asarray(value)))


def one_iteration_more(model: ModelProto) -> None:
    """Leaves when all had halted before this iteration, not after it."""
    body = body_of(loop_of(model.graph))
    # Behind the condition, a body's outputs are the state, in the order of its inputs behind counter and condition.
    before = {after.name: before.name for before, after in zip(body.input[2:], body.output[1:], strict=False)}
    node = next(node for node in body.node if node.op_type == "Or" and not before.keys().isdisjoint(node.input))
    node.input[:] = [before.get(name, name) for name in node.input]


def unknown_operator(model: ModelProto) -> None:
    """An operator that no runner knows."""
    next(node for node in nodes_of(model) if node.op_type == "Split").op_type = "Splitt"


def limit_off_by_one(model: ModelProto) -> None:
    """iteration <= limit for iteration < limit: it runs, and writes, behind the last depth."""
    next(node for node in nodes_of(model) if node.op_type == "Less" and len(node.input) == 2).op_type = "LessOrEqual"


def swapped_gate_and_up(model: ModelProto) -> None:
    """silu(up) * gate for silu(gate) * up, in every expert."""
    where = next((f.node for f in model.functions if f.name == "moe"), None) or nodes_of(model)
    splits = [node for node in where if node.op_type == "Split" and node.output[0].endswith("_gate")]
    assert splits
    for split in splits:
        split.output[0], split.output[1] = split.output[1], split.output[0]


def missing_shared_expert(model: ModelProto) -> None:
    """Only the routed experts."""
    function = next(function for function in model.functions if function.name == "moe")
    total = next(node for node in function.node if node.output[0] == "y_rows")
    assert total.op_type == "Add"
    total.CopyFrom(helper.make_node("Identity", ["routed"], ["y_rows"]))


def position_off_by_one(model: ModelProto) -> None:
    """Rotary angles of the next position."""
    _shifted(model, "positions", lambda node: node.op_type in ("Cast", "Unsqueeze"))


def wrong_expert_order(model: ModelProto) -> None:
    """The chosen experts in reverse, their weights as they were."""
    moe = next(node for node in nodes_of(model) if node.op_type == "moe")
    flip = helper.make_node("Gather", [moe.input[1], "reverse"], ["chosen_reversed"], axis=-1)
    at = list(nodes_of(model)).index(moe)
    moe.input[1] = flip.output[0]
    for node in (flip, constant("reverse", np.array([1, 0]))):
        nodes_of(model).insert(at, node)


def half_precision_overflow(model: ModelProto) -> None:
    """A product that leaves the range of float16 on its way."""
    name = next(node for node in nodes_of(model) if node.op_type == "moe").output[0]
    scaled = helper.make_node("Mul", [name, "large"], [f"{name}_scaled"])
    half = helper.make_node("Cast", [f"{name}_scaled"], [f"{name}_half"], to=10)
    back = helper.make_node("Cast", [f"{name}_half"], [f"{name}_back"], to=1)
    result = helper.make_node("Div", [f"{name}_back", "large"], [f"{name}_result"])
    after(model, name, constant("large", np.float32(1e7)), scaled, half, back, result)
    scaled.input[0] = name


def accumulated_remainder(model: ModelProto) -> None:
    """The last contribution's remainder goes into the sum of probabilities, where p belongs."""
    function = next(function for function in model.functions if function.name == "act_halting")
    product = next(node for node in function.node if node.output[0] == "p_run")
    product.input[list(product.input).index("p")] = "share"


def read_of_the_wrong_depth(model: ModelProto) -> None:
    """Every iteration attends to the first depth's cache."""
    attention = next(node for node in nodes_of(model) if node.op_type.endswith("_attention"))
    attention.input[list(attention.input).index("past_loop") + 1] = "first_depth"
    nodes_of(model).insert(0, constant("first_depth", np.int64(0)))


def row_of_the_wrong_depth(model: ModelProto) -> None:
    """Every iteration writes the first depth's row."""
    write = next(node for node in nodes_of(model) if node.op_type == "ScatterND")
    write.input[1] = "first_row"
    nodes_of(model).insert(0, constant("first_row", np.array([0])))


def row_position_off_by_one(model: ModelProto) -> None:
    """Rotary angles of the next position, in a row graph: they come out of a table."""
    _shifted(model, "position", lambda node: node.op_type == "Gather")


def code_of_the_next_loop(model: ModelProto) -> None:
    """Every loop is told the number of the next one."""
    _shifted(model, "loop", lambda node: node.op_type == "Gather")


def tables_of_the_first_loop(model: ModelProto) -> None:
    """The step in a Loop reads and writes the same pages in every loop."""
    nodes = nodes_of(model)
    knobs = next(node for node in nodes if node.op_type == "loop_knobs")
    nodes.insert(0, helper.make_node("Sub", ["loops/ahead", "loops/ahead"], ["nowhere"]))
    knobs.input[list(knobs.input).index("loops/ahead")] = "nowhere"


def depth_of_the_first_loop(model: ModelProto) -> None:
    """Every loop of a call is told the number of the first."""
    nodes = nodes_of(model)
    knobs = next(node for node in nodes if node.op_type == "loop_knobs")
    told, knobs.output[0] = knobs.output[0], "unused"
    nodes.insert(0, helper.make_node("Identity", ["loop"], [told]))


def stops_of_nobody(model: ModelProto) -> None:
    """A call goes on to its limit, whoever halts: the loops that are counted are too many."""
    nodes = nodes_of(model)
    asks = next(node for node in nodes if node.op_type == "loop_goes_on")
    nodes.insert(0, helper.make_node("Xor", ["stops", "stops"], ["nobody"]))
    asks.input[list(asks.input).index("stops")] = "nobody"


def spared_in_every_loop(model: ModelProto) -> None:
    """The experts leave out who has halted before its last loop, too: its later entries are made of nothing."""
    experts = next(node for node in nodes_of(model) if node.op_type == "moe")
    experts.input[list(experts.input).index("loop/last")] = "loop/halted"


def cache_of_another_layer(model: ModelProto) -> None:
    """The first layer of a part attends to what the second has cached."""
    first, second = (node for node in model.graph.node if node.op_type.endswith("_attention"))
    own, other = (next(name for name in node.input if name.startswith("cache_")) for node in (first, second))
    first.input[list(first.input).index(own)] = other


def _shifted(model: ModelProto, name: str, reads: Callable[[NodeProto], bool]) -> None:
    """One is added to an integer input of the graph, for some of those that read it."""
    readers = [node for node in model.graph.node if name in node.input and reads(node)]
    assert readers
    for node in readers:
        node.input[list(node.input).index(name)] = f"{name}_shifted"
    model.graph.node.insert(0, helper.make_node("Add", [name, "shift"], [f"{name}_shifted"]))
    model.graph.node.insert(0, constant("shift", np.int64(1)))


def halting_above_the_threshold(model: ModelProto) -> None:
    """> for >=: shows at an exact tie only."""
    function = _function(model, "act_halting")
    found = [node for node in function.node if node.op_type == "GreaterOrEqual"]
    assert found
    for node in found:
        node.op_type = "Greater"


def past_one_key_longer(model: ModelProto) -> None:
    """The slot behind a row's past is attended to."""
    _node(model, "slot_filled", "Less").op_type = "LessOrEqual"


def blind_to_itself(model: ModelProto) -> None:
    """A token attends to those before it, and not to itself."""
    _node(model, "key_is_before", "LessOrEqual").op_type = "Less"


def padding_as_key(model: ModelProto) -> None:
    """Padding is attended to by whoever stands behind it."""
    node = _node(model, "key_allowed", "And")
    node.CopyFrom(helper.make_node("Identity", ["key_is_before"], ["key_allowed"]))


def stale_memory_behind_the_past(model: ModelProto) -> None:
    """What is behind a row's past is multiplied by a weight of zero, whatever it is."""
    node = _node(model, "stored", "Where")
    node.CopyFrom(helper.make_node("Identity", ["stored_read"], ["stored"]))


def output_of_padding(model: ModelProto) -> None:
    """Depth counts every position, padding too."""
    last = next(node for node in model.graph.node if "depth" in node.output)
    last.output[list(last.output).index("depth")] = "depth_of_tokens"
    model.graph.node.append(constant("no_depth", np.int32(0)))
    model.graph.node.append(constant("some_depth", np.int32(1)))
    model.graph.node.append(helper.make_node("Equal", ["depth_of_tokens", "no_depth"], ["is_padding_depth"]))
    model.graph.node.append(helper.make_node("Where", ["is_padding_depth", "some_depth", "depth_of_tokens"], ["depth"]))


def _function(model: ModelProto, name: str):  # type: ignore[no-untyped-def]
    return next(function for function in model.functions if function.name == name)


def _node(model: ModelProto, output: str, kind: str) -> NodeProto:
    """A node of the attention's body."""
    body = next(function for function in model.functions if function.name.endswith("_attention"))
    return next(node for node in body.node if node.output[0] == output and node.op_type == kind)


def defective(bundle: Path, folder: Path, defect: Defect) -> Path:
    """A copy of a bundle with a defect, whose manifest vouches for it."""
    shutil.copytree(bundle, folder)
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    defect(model)
    onnx.save(model, folder / "model.onnx")
    manifest = read_manifest(bundle)
    files = {**manifest.files, "model.onnx": describe(folder / "model.onnx")}
    write_manifest(folder, dataclasses.replace(manifest, files=files))
    return folder
