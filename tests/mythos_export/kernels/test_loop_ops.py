"""The two operators that stand in the Loop of loops.onnx beside the step's own nodes, against numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from cpu_ops import DOMAINS, LIBRARY, Array, session
from onnx import helper

from mythos_export.kernels.text import DOMAIN

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
FAILURES = Exception  # ONNX Runtime's are many, and say what the operator said


def computed(operator: str, inputs: Mapping[str, Array], outputs: Mapping[str, type]) -> dict[str, Array]:
    """The outputs of a node with these inputs, in their order."""

    def described(name: str, dtype: np.dtype, rank: int) -> object:
        element = helper.np_dtype_to_tensor_dtype(dtype)
        return helper.make_tensor_value_info(name, element, [f"{name}_{axis}" for axis in range(rank)])

    node = helper.make_node(operator, list(inputs), list(outputs), domain=DOMAIN)
    graph = helper.make_graph(
        [node],
        operator,
        [described(name, value.dtype, value.ndim) for name, value in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    for value, dtype in zip(graph.output, outputs.values(), strict=True):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = helper.make_model(graph, opset_imports=DOMAINS, ir_version=10)
    return dict(zip(outputs, session(model, 1).run(None, dict(inputs)), strict=True))


KNOBS = {"loop_now": np.int64, "span_next": np.int64, "last_now": np.bool_, "threshold_now": np.float32}


def knobs(index: int, loops: int, rows: int) -> dict[str, Array]:
    r = np.random.default_rng(rows)
    return {
        "index": np.array(index),
        "loop": r.integers(0, 9, rows),
        "span": r.integers(-1, 4, rows),
        "ahead": r.integers(0, 4, rows),
        "last": r.random((loops, rows)) < 0.5,
        "threshold": r.random((loops, rows), np.float32),
    }


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("threshold", [True, False])
def test_rows_are_told_of_this_loop(rows: int, threshold: bool) -> None:
    given = knobs(2, 4, rows)
    wanted = dict(list(KNOBS.items())[: 4 if threshold else 3])
    found = computed("loop_knobs", given if threshold else {k: v for k, v in given.items() if k != "threshold"}, wanted)
    expected = {
        "loop_now": given["loop"] + 2,
        "span_next": given["span"] + given["ahead"],
        "last_now": given["last"][2],
        "threshold_now": given["threshold"][2],
    }
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.parametrize("index", [-1, 4])
def test_a_loop_that_nothing_is_said_of_is_refused(index: int) -> None:
    with pytest.raises(FAILURES, match=f"index is {index}; last has 4 lines"):
        computed("loop_knobs", knobs(index, 4, 3), KNOBS)


@pytest.mark.parametrize(
    ("stops", "halted", "goes"),
    [([], [], True), ([1, 0], [0, 1], True), ([1, 1], [0, 0], True), ([0, 1, 0], [1, 1, 1], False)],
)
def test_another_loop_follows_unless_a_row_stops_it(stops: list[int], halted: list[int], goes: bool) -> None:
    given = {"index": np.array(3), "stops": np.array(stops, bool), "halted": np.array(halted, bool)}
    found = computed("loop_goes_on", given, {"goes": np.bool_, "ran": np.int64})
    assert found["goes"].shape == () and bool(found["goes"]) is goes and int(found["ran"]) == 4
