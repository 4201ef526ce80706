"""Boundaries: which there are, which the golden cases hit, and what is told of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from plants import LONGEST, found, model_of

from mythos_export.kernels.library import USUAL
from mythos_export.verify.cases import Case
from mythos_export.verify.coverage import boundaries_of, coverage, missed, profiles_of
from mythos_export.verify.golden import Golden, make_golden
from mythos_export.verify.judgement import problems
from mythos_model import LoopedModel

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_boundary_that_no_case_hits_is_a_failure_and_an_expert_that_nobody_chose_is_told(
    made: tuple[LoopedModel, Golden],
) -> None:
    _, golden = made
    few = replace(golden, cases=golden.cases[:2])
    lines = problems(few, [])
    assert any("no golden case has past of a row 1, 31, 32" in line for line in lines)
    assert any("no golden case has padding left" in line for line in lines)
    rare = replace(golden, boundaries={**golden.boundaries, "chosen experts": [0, 99]})
    assert not missed(rare.coverage)
    row = next(row for row in rare.coverage if row.parameter == "chosen experts")
    assert row.missed == (99,) and not row.sure


def test_boundaries_are_those_of_the_library_and_fit_a_short_context(made: tuple[LoopedModel, Golden]) -> None:
    spec = made[1].spec
    wide = replace(USUAL, keys=48, heights=(9,))
    found = boundaries_of(spec, wide, {"experts": 3})
    assert found["rows of a call"] == [8, 9, 10] and 97 in found["past of a row"]
    assert found["position"][-1] == LONGEST - 1 and found["chosen experts"] == [0, 1, 2]
    short = boundaries_of(replace(spec, max_seq_len=5), wide, {})
    assert max(int(value) for value in short["past of a row"]) == 2 and short["tokens"] == [1, 5]


def test_both_ends_of_an_engine_s_profiles_are_hit_and_what_is_too_large_is_told() -> None:
    model = model_of("mla_decode")
    ends = {"batch": (2, 6), "tokens": (1, 48), "capacity": (0, 40), "depths": (1, 9)}
    profiles = {"prefill": ends, "decode": ends | {"tokens": (1, 1), "capacity": (3, 10**6)}}
    golden = make_golden(model, "fp32", profiles=profiles)
    assert not missed(golden.coverage) and found(model, golden) is None
    rows = {row.parameter: row for row in golden.coverage if "profile" in row.parameter}
    assert [rows[f"{size} of the engine's profile prefill"].hit for size in ends] == [(2, 6), (1, 48), (0, 40), (1, 9)]
    large = rows["beyond what is asked: capacity of the engine's profile decode"]
    assert (large.missed, large.sure) == ((10**6,), False)
    ordinary = [case for case in golden.cases if "batch" not in case.name]
    few = problems(replace(golden, cases=tuple(ordinary)), [])
    assert any("no golden case has tokens of the engine's profile prefill 48" in line for line in few)


def test_profiles_are_read_out_of_the_manifest_s_details() -> None:
    spec = model_of("mla_decode").spec

    def shape(dims: Any, **sizes: int) -> list[int]:
        return [dim if isinstance(dim, int) else sizes[dim] for dim in dims]

    shapes = {
        port.name: [
            shape(port.dims, B=batch, T=3, P=past, N=loops) for batch, past, loops in ((1, 0, 1), (2, 4, 4), (8, 16, 8))
        ]
        for port in spec.ports.inputs
    }
    expected = {"batch": (1, 8), "tokens": (3, 3), "capacity": (0, 16), "depths": (1, 8)}
    assert profiles_of(spec, [{"name": "prefill", "shapes": shapes}]) == {"prefill": expected}


def test_the_case_of_a_far_position_is_judged_as_the_others(made: tuple[LoopedModel, Golden]) -> None:
    _, golden = made
    last: Case = next(case for case in golden.cases if case.name == f"position {LONGEST - 1}")
    assert golden.of(last) is golden.tolerances
    assert np.isfinite(coverage([last], golden.boundaries)[0].least or 0)
