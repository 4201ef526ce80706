"""One definition, many implementations: each is held to the operator's reference over the same generated cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import IMPLEMENTATIONS, Implementation
from operator_cases import CASES, FEW, PACKED

from mythos_export.kernels.op import OPERATORS
from mythos_model.formats import FORMATS, PLAIN


def test_every_operator_has_cases() -> None:
    """In every format, where its weights may be in any, and over both kinds of pages."""
    for name, operator in OPERATORS.items():
        forms = set(FORMATS if operator.weights else [PLAIN])
        forms |= {PACKED} if "cache" in operator.inputs else set()
        if name == "embedding":  # which multiplies nothing
            forms -= {form for form in forms if FORMATS[form].activations}
        assert {form for op, form in CASES if op == name} == forms


# What an operator lacks (kernels/fallback.py) is not there to be tested.
PAIRS = [
    pytest.param(
        implementation,
        op,
        form,
        id=f"{implementation.name}-{op} {form}",
        marks=[pytest.mark.slow] * (form != PLAIN and implementation.name.startswith("Triton")),  # interpreted
    )
    for implementation in IMPLEMENTATIONS
    for op, form in CASES
    if implementation.serves(op, form)
]


@pytest.mark.parametrize(("implementation", "op", "form"), PAIRS)
def test_computes_what_the_reference_computes(implementation: Implementation, op: str, form: str) -> None:
    if implementation.missing:
        pytest.skip(implementation.missing)

    few = implementation.slow and (op, form) in FEW
    examples = implementation.examples // (2 if few else 1)

    @settings(max_examples=examples, deadline=None)
    @given(st.data())
    def check(data: Any) -> None:
        case = data.draw((FEW if few else CASES)[op, form])
        assert case.distance(implementation(case)) < implementation.tolerance[np.dtype(case.dtype).name]

    check()
