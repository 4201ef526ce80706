"""Every kernel against its reference in float64, over the cases that the tests draw, in every precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.gpu.cases import triton_ops
from benchmarks.gpu.run import LIMITS, Run, distance
from benchmarks.gpu.spread import spread
from mythos_export.kernels.beside import BESIDE
from mythos_model.formats import FORMATS, PLAIN, ROUNDED

_EXAMPLES, _DRY_EXAMPLES = 40, 2
_OPERATORS = (
    *("moe", "mla_attention", "gqa_attention", "paged_mla_attention", "paged_gqa_attention"),
    *BESIDE,
    *(f"{op}:{form}" for form in ROUNDED if not FORMATS[form].activations for op in ("moe", "linear")),
)
_FLOAT32 = (
    "act_halting",
    "rounded_line",
    *(f"{op}:int8 pages" for op in ("paged_mla_attention", "paged_gqa_attention")),
)
"""Those that are float32 at any precision.

Each is a name, and the format of the weights where that is not plain, or what pages hold where that is no floats."""


def main(run: Run) -> None:
    if not run.select:
        every = [f"{op}-{name}" for op in _OPERATORS for name in run.precisions]
        spread(run, "kernels", [*every, *(f"{op}-fp32" for op in _FLOAT32)], main)
        return
    label, _, name = run.select.partition("-")
    with run.record.step(f"{label} {name}"):
        _drawn(run, label, name)


def _drawn(run: Run, label: str, name: str) -> None:
    op, _, form = label.partition(":")
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st
    from operator_cases import CASES, CASES_BESIDE, FEW, reference_of, results  # of tests/: the keeper sets the path

    cases = CASES_BESIDE[op] if op in BESIDE else CASES[op, form or PLAIN]
    wide = BESIDE[op].wide if op in BESIDE else frozenset()
    dtype, kernel = run.precisions[name], triton_ops()[op]
    worst, seen, bad = 0.0, 0, []

    @seed(1)
    @settings(
        max_examples=run.examples or (_DRY_EXAMPLES if run.dry else _EXAMPLES),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data: Any) -> None:
        nonlocal worst, seen
        case = data.draw(FEW.get((op, form or PLAIN), cases) if run.dry else cases)
        if run.dry and any(value.size > 4000 for value in case.inputs.values()):
            return
        # NaN stays in the past, where nothing may read it; the chunk's is made finite, as the tests do.
        values = {k: np.nan_to_num(v, nan=3.0) if k == "chunk" else v for k, v in case.inputs.items()}
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in values.items()}
        rounded = {f"{k}_scale" for k in tensors} | {"scale"} if form else set()  # float16 at any precision
        cast = {k for k, v in tensors.items() if v.is_floating_point() and k not in rounded | wide}
        tensors = {k: v.to(dtype) if k in cast else v for k, v in tensors.items()}
        exact = {k: v.double().numpy() if v.is_floating_point() else v.numpy() for k, v in tensors.items()}
        expected = results(reference_of(op)(**exact, **case.attributes))
        on = {k: v.to(run.device) for k, v in tensors.items()}
        got, again = (_several(kernel(**on, **case.attributes)) for _ in range(2))
        far = max(distance(g.cpu(), _told(torch.from_numpy(e))) for g, e in zip(got, expected, strict=True))
        same = all(torch.equal(g, a) for g, a in zip(got, again, strict=True))
        seen += 1
        worst = max(worst, far) if far == far else float("inf")
        if not far < LIMITS[name] or not same:
            shapes = {k: list(v.shape) for k, v in tensors.items()}
            bad.append({"distance": far, "same_twice": same, "shapes": shapes, **case.attributes})

    check()
    limits = {"worst": worst, "limit": LIMITS[name], "cases": seen}
    run.record.say(f"{label} {name}", {**limits, "ok": not bad and seen > 0, "bad": len(bad), "first_bad": bad[:2]})


def _several(result: Any) -> tuple[torch.Tensor, ...]:
    return tuple(_told(each) for each in (result if isinstance(result, tuple) else (result,)))


def _told(result: torch.Tensor) -> torch.Tensor:
    """With a number in place of NaN, which stays in pages that nobody wrote; where it is not expected, it shows."""
    return result.nan_to_num(nan=7.0) if result.is_floating_point() else result
