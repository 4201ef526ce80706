"""One definition, many implementations: each is held to the operator's reference over the same generated cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import IMPLEMENTATIONS, Implementation
from operator_cases import CASES

from mythos_export.kernels.op import OPERATORS


def test_every_operator_has_cases() -> None:
    assert CASES.keys() == OPERATORS.keys()


# What an operator lacks (kernels/fallback.py) is not there to be tested.
PAIRS = [
    pytest.param(implementation, op, id=f"{implementation.name}-{op}")
    for implementation in IMPLEMENTATIONS
    for op in CASES
    if implementation.serves(op)
]


@pytest.mark.parametrize(("implementation", "op"), PAIRS)
def test_computes_what_the_reference_computes(implementation: Implementation, op: str) -> None:
    if implementation.missing:
        pytest.skip(implementation.missing)

    @settings(max_examples=implementation.examples, deadline=None)
    @given(st.data())
    def check(data: Any) -> None:
        case = data.draw(CASES[op])
        assert case.distance(implementation(case)) < implementation.tolerance[np.dtype(case.dtype).name]

    check()
