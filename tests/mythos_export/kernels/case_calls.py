"""Cases of operators as a graph would say them: what compiled kernels are described by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from operator_cases import OperatorCase

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.cuda.signatures import LEADING, SIGNATURES
from mythos_export.kernels.launch_plan import Plan
from mythos_export.kernels.op import OPERATORS

_OPEN = {*"BTSL", "rows", "pages", "spans", "blocks"}

Calls = list[tuple[OperatorCall, tuple[Plan, ...]]]


def calls_of_cases(cases: list[OperatorCase]) -> Calls:
    """The cases as a graph would say them, and their plans."""
    return [(_as_a_graph_says(case), plans_of(case)) for case in cases]


def plans_of(case: OperatorCase) -> tuple[Plan, ...]:
    """Those of the case's sizes."""
    make = OPERATORS[case.op].plans
    assert make is not None
    return make(case.call, precision_of(case))


def precision_of(case: OperatorCase) -> str:
    return {"float32": "fp32", "float16": "fp16"}[np.dtype(case.dtype).name]


def _as_a_graph_says(case: OperatorCase) -> Any:
    """The call, whose batch, tokens and past are open."""
    shapes: dict[str, Any] = dict(case.call.shapes)
    for tensor in SIGNATURES[case.op].inputs:
        names = tensor.extents or ()
        if names[:1] == (LEADING,):
            names = ("T",) * (len(shapes[tensor.name]) - len(names) + 1) + names[1:]
        if names and tensor.name in shapes and not tensor.or_scalar:
            shapes[tensor.name] = tuple(
                None if name in _OPEN else size for name, size in zip(names, shapes[tensor.name], strict=True)
            )
    return replace(case.call, shapes=shapes)
