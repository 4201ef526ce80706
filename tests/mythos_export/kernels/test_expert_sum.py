"""Experts that are computed apart, and summed: the bits of mythos::moe, whoever computed them."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_ops import LIBRARY, node_model, session
from product_cases import attributes, moe_inputs

from mythos_model.formats import FORMATS

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="the native operators are not built: make native")


@pytest.mark.parametrize("form", [form for form in FORMATS if FORMATS[form].native])
@pytest.mark.parametrize(("n", "D", "K", "Fs"), [(1, 96, 3, 16), (7, 37, 5, 0), (40, 64, 1, 33)])
def test_has_the_bits_of_moe(form: str, n: int, D: int, K: int, Fs: int) -> None:
    """Each expert of each row by itself, as a shard computes it, in another order than the sum's."""
    inputs = moe_inputs(n + K, n, D, E=9, K=K, F=24, Fs=Fs, form=form)
    run = session(node_model("moe", np.float32, **attributes(form)))
    (whole,) = run.run(None, inputs)
    none = {name: value[:0] for name, value in inputs.items() if name.startswith("shared_gate_up")}
    none |= {name: value[:, :0] for name, value in inputs.items() if name.startswith("shared_down")}
    parts = np.zeros((n, K, D), np.float32)
    for row, slot in reversed(list(np.ndindex(n, K))):
        one = {"x": inputs["x"][row : row + 1], "expert_index": inputs["expert_index"][row : row + 1, slot : slot + 1]}
        one["expert_weight"] = np.ones((1, 1), np.float32)
        parts[row, slot] = run.run(None, {**inputs, **none, **one})[0][0]
    shared = np.zeros(0, np.float32)
    if Fs:
        own = {name.replace("shared", "routed"): inputs[name][None] for name in inputs if name.startswith("shared")}
        chosen = {"expert_index": np.zeros((n, 1), np.int64), "expert_weight": np.ones((n, 1), np.float32)}
        (shared,) = run.run(None, {**inputs, **none, **own, **chosen})
    summed = session(node_model("expert_sum", np.float32))
    given = {name: inputs[name] for name in ("expert_index", "expert_weight")}
    (apart,) = summed.run(None, {"parts": parts, **given, "shared": shared})
    assert np.array_equal(apart.view(np.int32), whole.view(np.int32))


def test_what_does_not_fit_is_refused() -> None:
    run = session(node_model("expert_sum", np.float32))
    rows = {"expert_index": np.zeros((2, 3), np.int64), "expert_weight": np.zeros((2, 3), np.float32)}
    with pytest.raises(Exception, match=r"parts .*\[2, 4, 8\].*\[2, 3, 8\]"):
        run.run(None, {"parts": np.zeros((2, 4, 8), np.float32), **rows, "shared": np.zeros(0, np.float32)})
