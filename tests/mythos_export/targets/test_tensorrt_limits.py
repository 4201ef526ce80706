"""Compute capabilities: how they are read, grouped into engines, and refused with the nearest thing that works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos_export.errors import TargetError
from mythos_export.targets.tensorrt_build import group_sms, parse_sms
from mythos_export.targets.tensorrt_build.limits import RTX_SMS, check_targets, explain, target_limits


def test_turing_is_an_engine_of_its_own() -> None:
    assert group_sms([120, 75, 80]) == [(80, 120), (75,)]
    assert group_sms([75]) == [(75,)]
    assert group_sms([89, 89]) == [(89,)]


@given(st.lists(st.sampled_from(sorted(RTX_SMS)), min_size=1))
def test_groups_hold_every_sm_once(sms: list[int]) -> None:
    assert sorted(sm for group in group_sms(sms) for sm in group) == sorted(set(sms))


def test_parse_sms() -> None:
    assert parse_sms("80, sm86,SM_89,80") == (80, 86, 89)
    with pytest.raises(TargetError, match="8x"):
        parse_sms("80,8x")


@pytest.mark.parametrize(
    ("sms", "precision", "says"),
    [
        ((90,), "fp16", "H100.*full TensorRT"),
        ((100,), "fp16", "B200"),
        ((42,), "fp16", "SM 42: no such target"),
        ((75, 80), "bf16", "bf16 on SM 75.*Instead: --precision fp16"),
        ((75,), "fp32", "no fp32 matrix product"),
        ((75,), "int4", "from SM 80 on"),
    ],
)
def test_refusals_name_the_reason_and_the_nearest_thing(sms: tuple[int, ...], precision: str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as caught:
        check_targets(sms, precision)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("sms", "precision"), [((75,), "fp16"), ((75,), "int8"), ((80, 86, 89, 120, 121), "bf16")])
def test_what_builds_is_not_refused(sms: tuple[int, ...], precision: str) -> None:
    assert target_limits(sms, precision) == []


def test_every_refusal_is_listed_at_once() -> None:
    assert len(target_limits((75, 90, 42, 80), "bf16")) == 3


def test_explain_reads_tensorrts_words() -> None:
    limit = explain(
        "Cannot compile operation 'node_of_rl' for Turing (SM75): FP32 GEMM is not supported. In compileGraph"
    )
    assert limit is not None and "SM 75" in limit.what
    assert explain("a message nobody has seen") is None
