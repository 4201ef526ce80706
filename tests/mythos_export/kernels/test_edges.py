"""Every boundary of the kernels has a case on both sides, every implementation is right there, and defects show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from cpu_ops import LIBRARY, describe
from edges import CHUNKS, COLUMNS, DEPTHS, KEYS, OPERATORS_WITH_EDGES, TOKENS, WIDTHS, edge_cases
from implementations import IMPLEMENTATIONS, Implementation
from operator_cases import CASES, Array, OperatorCase

from mythos_model.formats import FORMATS, PLAIN

PAIRS = [
    pytest.param(implementation, op, form, id=f"{implementation.name}-{op} {form}")
    for implementation in IMPLEMENTATIONS
    for op, form in CASES
    if op in OPERATORS_WITH_EDGES and implementation.serves(op, form) and not implementation.slow
]


@pytest.mark.parametrize(("implementation", "op", "form"), PAIRS)
def test_right_at_every_edge(implementation: Implementation, op: str, form: str) -> None:
    if implementation.missing:
        pytest.skip(implementation.missing)
    for case in edge_cases(op, form):
        distance = case.distance(implementation(case))
        shapes = {name: value.shape for name, value in case.inputs.items()}
        assert distance < implementation.tolerance[np.dtype(case.dtype).name], f"{shapes} {case.attributes}"


@pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
def test_the_sizes_are_those_of_the_kernels() -> None:
    """Asked from the library: a kernel that is cut otherwise asks for other sizes here."""
    said = describe()

    def both_sides(sizes: Iterable[int], boundary: int) -> bool:
        return {boundary - 1, boundary, boundary + 1} <= {*sizes, 0}

    for tiles in said["isas"].values():
        for sizes in (WIDTHS, DEPTHS, COLUMNS):
            assert both_sides(sizes, tiles["width"])
        assert both_sides(COLUMNS, tiles["strip"]) and both_sides(COLUMNS, 2 * tiles["strip"])
        assert (
            both_sides(TOKENS, tiles["rounded_rows"])
            and both_sides(TOKENS, tiles["rows"])
            and both_sides(TOKENS, tiles["panel_rows"])
        )
        assert both_sides(DEPTHS, tiles["panel_depth"])
    assert both_sides(DEPTHS, said["deep"])
    for form in said["formats"]:
        if form["block"] > 1:
            assert both_sides(DEPTHS, form["block"]) and both_sides(COLUMNS, form["tile"])
            assert both_sides(COLUMNS, 4 * form["tile"])  # as many as one row of activations meets at once
    for sizes in (KEYS, CHUNKS):
        assert both_sides(sizes, said["key_block"])
    assert both_sides(KEYS, 2 * said["key_block"])


def _without_tail(name: str, multiple: int) -> Callable[[dict[str, Array]], None]:
    """What is behind the last multiple of a register, tile or block is lost."""

    def plant(inputs: dict[str, Array]) -> None:
        inputs[name][..., inputs[name].shape[-1] // multiple * multiple :] = 0

    return plant


def _swap_halves(inputs: dict[str, Array]) -> None:
    """The high half of a byte comes first."""
    inputs["weight"][:] = inputs["weight"] >> 4 | inputs["weight"] << 4


def _zero_point(inputs: dict[str, Array]) -> None:
    """7 stands for zero, not 8."""
    low, high = inputs["weight"] & 15, inputs["weight"] >> 4
    inputs["weight"][:] = np.minimum(low + 1, 15) | np.minimum(high + 1, 15) << 4


def _unsigned(inputs: dict[str, Array]) -> None:
    """The highest bit is lost."""
    inputs["weight"][:] = inputs["weight"] & 127


def _next_scale(inputs: dict[str, Array]) -> None:
    """A block takes its neighbour's scales."""
    inputs["scale"][:] = np.roll(inputs["scale"], 1, axis=-2)


def _other_lane(inputs: dict[str, Array]) -> None:
    """A row takes the scale of the row beside it."""
    inputs["scale"][:] = np.roll(inputs["scale"], 1, axis=-1)


def _last_key_of_a_block(inputs: dict[str, Array]) -> None:
    """The last key of a full block of the past is read from the slot before it."""
    if inputs["past"].shape[2] > 31:
        inputs["past"][:, :, 31] = inputs["past"][:, :, 30]


def _last_block_of_the_past(inputs: dict[str, Array]) -> None:
    """What is left of the past behind its whole blocks of keys is lost."""
    inputs["past_lengths"][:] = inputs["past_lengths"] // 32 * 32


def _halves_apart(inputs: dict[str, Array]) -> None:
    """Gate and up change places."""
    weight = inputs["routed_gate_up"]
    weight[:] = np.roll(weight, weight.shape[1] // 2, axis=1)


NATIVE = [form for form in FORMATS if FORMATS[form].native]
PLANTS: list[tuple[str, str, Callable[[dict[str, Array]], None]]] = [
    *[(op, form, _without_tail("x", size)) for op in ("linear", "moe") for form in NATIVE for size in (4, 8, 16, 32)],
    *[("gqa_attention", PLAIN, _without_tail("q", size)) for size in (4, 8, 16)],
    *[("mla_attention", PLAIN, _without_tail(name, size)) for name in ("q_nope", "kv_up") for size in (4, 8, 16)],
    *[(op, "int4", plant) for op in ("linear", "embedding") for plant in (_swap_halves, _zero_point)],
    *[(op, "int8", _unsigned) for op in ("linear", "embedding")],
    *[("linear", form, plant) for form in ("int8", "int4") for plant in (_next_scale, _other_lane)],
    *[(op, PLAIN, _last_key_of_a_block) for op in ("gqa_attention", "mla_attention")],
    *[(op, PLAIN, _last_block_of_the_past) for op in ("gqa_attention", "mla_attention")],
    *[("moe", form, _halves_apart) for form in NATIVE],
]


def _name(value: Any) -> str:
    return value if isinstance(value, str) else value.__qualname__.strip("_").split(".")[0]


@pytest.mark.parametrize(("op", "form", "plant"), PLANTS, ids=_name)
def test_a_defect_is_far_outside_the_tolerance(op: str, form: str, plant: Callable[[dict[str, Array]], None]) -> None:
    plain = next(implementation for implementation in IMPLEMENTATIONS if implementation.name == "plain PyTorch")
    worst = 0.0
    for case in edge_cases(op, form):
        inputs = {name: value.copy() for name, value in case.inputs.items()}
        plant(inputs)
        distance = case.distance(plain(OperatorCase(op, inputs, case.attributes)))
        worst = max(worst, distance / plain.tolerance[np.dtype(case.dtype).name])
    assert worst > 1000
