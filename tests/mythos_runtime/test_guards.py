"""Results that are no numbers, and a cache that two threads use: errors, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from small_spec import spec

from mythos_runtime import Model, RequestError
from mythos_runtime.errors import ResultError
from mythos_runtime.ports import numpy_dtype, shape_of
from mythos_runtime.stores import HOST


class Zeros:
    """A session that computes nothing: outputs of the right shape, `broken` of them NaN."""

    description, name = "zeros", "zeros"
    store = HOST

    def __init__(self, broken: tuple[int, ...] | None = None) -> None:
        self.broken = broken
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.inside.set()
        assert self.go_on.wait(timeout=20)
        batch, tokens = inputs["input_ids"].shape
        symbols = {"B": batch, "T": tokens, "N": len(inputs["past_loop"])}
        out = {port.name: np.zeros(shape_of(port, symbols), numpy_dtype(port.dtype)) for port in spec().ports.outputs}
        out["loops"] = np.array(int(inputs["max_loops"]))
        if self.broken is not None:
            out["logits"][self.broken] = np.nan
        return out


def test_nan_is_a_result_error_that_says_where_and_leaves_the_cache_alone() -> None:
    model = Model(spec(), Zeros((1, 2, 3)))  # type: ignore[arg-type]
    cache = model.new_cache(2, 8)
    with pytest.raises(ResultError, match="NaN at row 1, token 2: its results are broken"):
        model.forward([[1, 2, 3], [4, 5, 6]], cache=cache)
    assert not cache.lengths.any()
    with pytest.raises(ResultError, match="NaN at row 1, token 2"):
        model.forward([[1, 2, 3], [4, 5, 6]])


def test_what_padding_means_is_nobody_s_business() -> None:
    model = Model(spec(), Zeros((1, 2, 3)))  # type: ignore[arg-type]
    assert model.forward([[1, 2, 3], [4, 5, 0]], lengths=[3, 2]).depth.shape == (2, 3)


def test_a_cache_that_two_threads_use_is_refused_and_one_after_the_other_is_not() -> None:
    session = Zeros()
    model = Model(spec(), session)  # type: ignore[arg-type]
    cache = model.new_cache(1, 8)
    session.go_on.clear()
    thread = threading.Thread(target=lambda: model.forward([[1, 2]], cache=cache))
    thread.start()
    assert session.inside.wait(timeout=20)
    try:
        with pytest.raises(RequestError, match="in use by another call.*one thread at a time"):
            model.forward([[3, 4]], cache=cache)
    finally:
        session.go_on.set()
        thread.join()
    assert cache.lengths.tolist() == [2]
    model.forward([[3, 4]], cache=cache)
    with pytest.raises(RequestError, match="ids"):
        model.forward([[-1]], cache=cache)
    model.forward([[5]], cache=cache)  # an error gave it back
    assert cache.lengths.tolist() == [5]
