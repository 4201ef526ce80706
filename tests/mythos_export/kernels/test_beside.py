"""Norms, rotations and ends of iterations: plain and in Triton they compute what their references do; and which of them
a bundle's programs launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_bundles import GOLDEN, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from implementations import plain_torch, run_torch
from operator_cases import CASES_BESIDE, results

from mythos_export.capture import capture, capture_rows
from mythos_export.kernels.beside import BESIDE, plans_of
from mythos_export.making import load
from mythos_export.verify.weights import Weighing
from mythos_export.weights_file import write_weights

pytest.importorskip("triton")


def test_each_has_cases() -> None:
    assert BESIDE.keys() == CASES_BESIDE.keys()


@pytest.mark.parametrize("op", BESIDE)
@pytest.mark.parametrize("kind", ["plain", "Triton"])
def test_computes_what_the_reference_computes(kind: str, op: str) -> None:
    from mythos_export.kernels.eager import kernels

    run = plain_torch if kind == "plain" else kernels().__getitem__

    @settings(max_examples=40 if kind == "plain" else 12, deadline=None)
    @given(st.data())
    def check(data: Any) -> None:
        case = data.draw(CASES_BESIDE[op])
        got = results(run_torch(run, case))
        half = any(value.dtype == np.float16 for value in case.inputs.values())
        assert case.distance(tuple(map(np.asarray, got))) < (5e-3 if half else 1e-5)

    check()


@pytest.mark.parametrize("precision", ["fp16", pytest.param("fp32", marks=pytest.mark.slow)])
def test_what_a_models_programs_launch(precision: str, tmp_path: Path) -> None:
    loaded = load(GOLDEN / "mla_decode" / "model.safetensors", precision, **config_of("mla_decode"))
    weights = write_weights(loaded.model, loaded.checkpoint.sources, tmp_path / "w.safetensors", Weighing, {})
    rows = capture_rows(weights.model)
    assert rows is not None
    spec, c = loaded.model.spec, loaded.model.config
    plans = plans_of((capture(weights.model).program, rows.program), spec)
    found = {(plan.operator, plan.variant) for plan in plans}
    assert {operator for operator, _ in found} == set(BESIDE)
    state = {f"D{c.dim}-{given}" for given in ("fp32", precision)}  # the loop's is float32 at any precision
    assert {("rms_norm", name) for name in state} <= found
    assert ("loop_tail", f"D{c.dim}-R{c.lora_rank}") in found
    assert {("rotary_embedding", f"H{heads}-P{c.qk_rope_head_dim}") for heads in (c.n_heads, 1)} <= found
    assert {spec.precision for plan in plans for spec in plan.launches} == {precision}
    names = [spec.name for plan in plans for spec in plan.launches]
    assert len(set(names)) == len(names)
    assert plans_of((), spec) == ()
