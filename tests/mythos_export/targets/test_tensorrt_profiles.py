"""Profiles of an engine: the ranges of shapes for prefill and decode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mythos_export.errors import TargetError
from mythos_export.targets.tensorrt_build import Range, profiles_for

INPUTS = [
    ("input_ids", ("batch", "tokens")),
    ("past_lengths", ("batch",)),
    ("max_loops", ()),
    ("past_layers", (4, "batch", "past", 576)),
    ("past_loop", ("loops", "batch", "past", 576)),
]
LOOPS = Range(1, 16, 16)


def test_prefill_and_decode_shapes() -> None:
    prefill, decode = profiles_for(
        INPUTS, batch=Range(1, 2, 8), tokens=Range(1, 128, 512), context=Range(0, 1024, 4096), loops=LOOPS
    )
    assert (prefill.name, decode.name) == ("prefill", "decode")
    assert prefill.shapes["input_ids"] == ((1, 1), (2, 128), (8, 512))
    assert decode.shapes["input_ids"] == ((1, 1), (2, 1), (8, 1))
    assert prefill.shapes["past_loop"] == ((1, 1, 0, 576), (16, 2, 1024, 576), (16, 8, 4096, 576))
    assert decode.shapes["past_layers"] == ((4, 1, 1, 576), (4, 2, 1024, 576), (4, 8, 4096, 576))
    assert prefill.shapes["max_loops"] == ((), (), ())
    assert prefill.values == {"max_loops": (0, 16, 16)}


def test_no_decode_profile_without_a_context() -> None:
    profiles = profiles_for(
        INPUTS, batch=Range(1, 1, 1), tokens=Range(1, 8, 8), context=Range(0, 0, 0), loops=Range(1, 4, 4)
    )
    assert [profile.name for profile in profiles] == ["prefill"]


def test_a_prompt_starts_with_an_empty_past_whatever_the_smallest_context() -> None:
    prefill, decode = profiles_for(
        INPUTS, batch=Range(1, 1, 1), tokens=Range(1, 8, 8), context=Range(64, 64, 64), loops=LOOPS
    )
    assert prefill.shapes["past_layers"][0] == (4, 1, 0, 576)
    assert decode.shapes["past_layers"][0] == (4, 1, 64, 576)


@pytest.mark.parametrize(
    ("text", "expected"), [("1:4:8", Range(1, 4, 8)), ("3", Range(3, 3, 3)), (" 0:0:2", Range(0, 0, 2))]
)
def test_parse(text: str, expected: Range) -> None:
    assert Range.parse(text, "--batch") == expected


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "a:b:c", "-1:1:2", "1.5", "8:4:1"])
def test_parse_names_the_option(text: str) -> None:
    with pytest.raises(TargetError, match=r"--tokens.*"):
        Range.parse(text, "--tokens")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": Range(0, 1, 8)}, "--batch 0:1:8"),
        ({"tokens": Range(0, 1, 8)}, "--tokens 0:1:8"),
        ({"loops": Range(0, 1, 8)}, "--loops 0:1:8"),
        ({"tokens": Range(1, 1, 300)}, "max_seq_len of 256"),
        ({"context": Range(0, 1, 300)}, "max_seq_len of 256"),
    ],
)
def test_ranges_that_cannot_be(changed: dict[str, Range], message: str) -> None:
    ranges = {"batch": Range(1, 1, 8), "tokens": Range(1, 1, 8), "context": Range(0, 1, 8), "loops": Range(1, 1, 8)}
    with pytest.raises(TargetError, match=message):
        profiles_for(INPUTS, **{**ranges, **changed}, max_seq_len=256)


def test_unknown_symbol_is_named() -> None:
    one = Range(1, 1, 1)
    with pytest.raises(TargetError, match=r"'mask' has the dynamic dimension 's77'"):
        profiles_for([("mask", ("batch", "s77"))], batch=one, tokens=one, context=one, loops=one)


ranges = st.lists(st.integers(1, 4096), min_size=3, max_size=3).map(lambda numbers: Range(*sorted(numbers)))


@given(batch=ranges, tokens=ranges, context=ranges, loops=ranges)
def test_every_profile_is_ordered_and_decode_lies_within_the_ranges(
    batch: Range, tokens: Range, context: Range, loops: Range
) -> None:
    for profile in profiles_for(INPUTS, batch=batch, tokens=tokens, context=context, loops=loops):
        for low, opt, high in profile.shapes.values():
            assert all(a <= b <= c for a, b, c in zip(low, opt, high, strict=True))
        assert profile.shapes["past_loop"][2] == (loops.max, batch.max, context.max, 576)
        assert profile.to_json()["shapes"]["input_ids"][2][0] == batch.max
