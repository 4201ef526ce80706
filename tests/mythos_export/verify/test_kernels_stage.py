"""`mythos verify` holds this machine's operator library to the references at its own boundaries: plants in it show.

A plant is what a kernel with a mistake would compute, made by giving the sound kernel other inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mythos_export.kernels.edges import OPERATORS, EdgeCall, Sizes, edge_calls
from mythos_export.kernels.library import describe
from mythos_export.verify.stages import kernels
from mythos_export.verify.stages.kernels import check_kernels, kernels_stage
from mythos_model.formats import FORMATS, PLAIN
from mythos_runtime.op_library import find_op_library

Array = np.ndarray
LIBRARY = find_op_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the native operators are not built: make native")


def test_the_installed_library_is_right_on_every_instruction_set_of_this_machine() -> None:
    assert LIBRARY is not None
    checked = check_kernels(LIBRARY)
    assert checked.problem is None
    assert checked.calls.keys() == describe(LIBRARY)["isas"].keys() and min(checked.calls.values()) > 150
    stage = kernels_stage(lambda step, part=None: None)
    assert stage.state == "pass" and "calls on generic" in stage.runner


def test_both_sides_of_every_boundary_are_called() -> None:
    assert LIBRARY is not None
    said = describe(LIBRARY)
    sizes = Sizes.of(said)
    for isa in said["isas"].values():
        for size, of in (
            (isa["width"], sizes.widths),
            (isa["strip"], sizes.columns),
            (isa["panel_depth"], sizes.depths),
            (said["deep"], sizes.depths),
        ):
            assert {size - 1, size, size + 1} <= {*of}
        assert {isa["rows"] + 1, isa["panel_rows"] - 1} <= {*sizes.tokens}
    calls = list(edge_calls("mla_attention", PLAIN, said))
    lengths = {int(call.inputs["past_lengths"][0]) for call in calls}
    assert lengths == {*sizes.keys} and {31, 32, 33, 63, 64, 65} <= lengths
    for form in [form for form in FORMATS if FORMATS[form].native]:
        shapes = {call.inputs["x"].shape for call in edge_calls("linear", form, said)}
        assert {shape[1] for shape in shapes} == {*sizes.depths} and {shape[0] for shape in shapes} == {*sizes.tokens}


def _tail(name: str, width: int) -> Callable[[dict[str, Array]], None]:
    """What is behind the last whole register is lost."""

    def plant(inputs: dict[str, Array]) -> None:
        inputs[name][..., inputs[name].shape[-1] // width * width :] = 0

    return plant


def _nibbles(inputs: dict[str, Array]) -> None:
    if inputs["weight"].dtype == np.uint8:
        inputs["weight"][:] = inputs["weight"] >> 4 | inputs["weight"] << 4


def _zero_point(inputs: dict[str, Array]) -> None:
    if inputs["weight"].dtype == np.uint8:
        low, high = inputs["weight"] & 15, inputs["weight"] >> 4
        inputs["weight"][:] = np.minimum(low + 1, 15) | np.minimum(high + 1, 15) << 4


def _sign(inputs: dict[str, Array]) -> None:
    if inputs["weight"].dtype == np.int8:
        inputs["weight"][:] = inputs["weight"] & 127


def _scale_of_the_next_block(inputs: dict[str, Array]) -> None:
    if "scale" in inputs:
        inputs["scale"][:] = np.roll(inputs["scale"], 1, axis=-2)


def _halves(inputs: dict[str, Array]) -> None:
    weight = inputs["routed_gate_up"]
    if weight.dtype == np.float32:
        weight[:] = np.roll(weight, weight.shape[1] // 2, axis=1)


def _last_key(inputs: dict[str, Array]) -> None:
    if inputs["past"].shape[2] > 32:
        inputs["past"][:, :, 31] = inputs["past"][:, :, 30]


def _whole_blocks(inputs: dict[str, Array]) -> None:
    inputs["past_lengths"][:] = inputs["past_lengths"] // 32 * 32


def _other_layer(inputs: dict[str, Array]) -> None:
    inputs["layer"] = np.array(0)


def _one_expert(inputs: dict[str, Array]) -> None:
    inputs["expert_index"][-1:] = inputs["expert_index"][-1:, ::-1]


def _second_part(inputs: dict[str, Array]) -> None:
    """Of values so small that no norm over both parts sees them."""
    inputs["x"][..., inputs["x"].shape[-1] // 2 :] = 0


def _above(inputs: dict[str, Array]) -> None:
    inputs["threshold"][:] = np.nextafter(inputs["threshold"], np.float32(np.inf))


def _depth(inputs: dict[str, Array]) -> None:
    inputs["depth"][inputs["halted"]] += 1


PLANTS: list[tuple[str, Callable[[dict[str, Array]], None]]] = [
    *[("linear", _tail("x", width)) for width in (4, 8, 16)],
    *[("linear", plant) for plant in (_nibbles, _zero_point, _sign, _scale_of_the_next_block)],
    *[("embedding", plant) for plant in (_nibbles, _sign)],
    *[("moe", plant) for plant in (_halves, _one_expert, _tail("x", 8))],
    *[("gqa_attention", plant) for plant in (_tail("q", 4), _last_key, _whole_blocks, _other_layer)],
    *[("mla_attention", plant) for plant in (_tail("q_nope", 8), _last_key, _whole_blocks, _other_layer)],
    *[("rounded_line", plant) for plant in (_tail("x", 8), _second_part)],
    *[("act_halting", plant) for plant in (_above, _depth, _tail("h", 4))],
]


@pytest.mark.parametrize(("op", "plant"), PLANTS, ids=lambda value: getattr(value, "__qualname__", value).split(".")[0])
def test_a_planted_kernel_is_caught_and_named(
    op: str, plant: Callable[[dict[str, Array]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LIBRARY is not None
    run = kernels._run

    def planted(library: Path, isa: str, call: EdgeCall) -> list[Any]:
        inputs = {name: array.copy() for name, array in call.inputs.items()}
        if call.op == op:
            plant(inputs)
        return run(library, isa, EdgeCall(call.op, inputs, call.attributes))

    said = describe(LIBRARY)
    one = {**said, "isas": {"generic": said["isas"]["generic"]}}
    monkeypatch.setattr(kernels, "describe", lambda library: one)
    monkeypatch.setattr(kernels, "_run", planted)
    monkeypatch.setattr(kernels, "OPERATORS", (op,))
    stage = kernels_stage(lambda step, part=None: None)
    assert stage.state == "fail" and stage.failure is not None
    assert stage.failure.operator == f"mythos::{op}" and "generic" in stage.failure.problem.text
    assert " off, allowed" in stage.failure.describe() and f"begins at mythos::{op}" in stage.failure.describe()


def test_a_library_that_cannot_be_asked_is_not_run_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "libmythos_ops.so").write_bytes(b"no library")
    for value, words in ((str(tmp_path / "libmythos_ops.so"), "build it again"), ("none", "unset it")):
        monkeypatch.setenv("MYTHOS_OP_LIBRARY", value)
        stage = kernels_stage(lambda step, part=None: None)
        assert stage.state == "not run" and stage.reason is not None and words in stage.reason


def test_every_operator_with_kernels_of_its_own_has_edges() -> None:
    assert LIBRARY is not None
    said = describe(LIBRARY)
    for op in OPERATORS:
        assert len(list(edge_calls(op, PLAIN, said))) >= 7  # with AVX2 alone; wider kernels have more sizes
