"""Lines rounded to int8 at the edges of the numbers: every implementation has the reference's bits."""

from __future__ import annotations

import numpy as np
import pytest
from implementations import IMPLEMENTATIONS, Implementation
from operator_cases import PACKED, Array, OperatorCase, reference_of
from test_paged_rows import ATTRIBUTES, PARTS, call_inputs

from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.rounded_line.reference import rounded_line, unpack
from mythos_model.formats import PLAIN

WIDTHS = (1, 2, 7, 8, 9, 16, 17, 33)
MOST = np.finfo(np.float32).max
BROKEN = (np.nan, np.inf, -np.inf)

ROUND = [each for each in IMPLEMENTATIONS if each.serves("rounded_line", PLAIN) and not each.missing]
APPEND = [
    pytest.param(each, op, id=f"{each.name}-{op}")
    for op in ATTRIBUTES
    for each in IMPLEMENTATIONS
    if each.serves(op, PACKED) and not each.missing and not each.name.endswith("threads")
]


def hold(implementation: Implementation, x: Array, width: int) -> Array:
    """To the bit what the reference computes in float32; that."""
    expected = rounded_line(x, width=width)
    (found,) = implementation(OperatorCase("rounded_line", {"x": x}, {"width": width}))
    assert found.dtype == np.float32 and np.array_equal(found, expected, equal_nan=True)
    return expected


@pytest.mark.parametrize("implementation", ROUND, ids=lambda each: each.name)
def test_what_is_no_number_takes_its_part_and_no_other(implementation: Implementation) -> None:
    for width in WIDTHS:
        r = np.random.default_rng(width)
        places = sorted({0, width // 2, width - 1})
        # Away from the middle of two integers: a division may be off by its last bit.
        x = (r.integers(-127, 128, (len(BROKEN) * len(places), 2, width)) * 0.5).astype(np.float32)
        x[..., 0] = 63.5
        for line, (broken, place) in enumerate((broken, place) for broken in BROKEN for place in places):
            x[line, line % 2, place] = broken
        expected = hold(implementation, x.reshape(len(x), 2 * width), width).reshape(x.shape)
        for line, parts in enumerate(expected):
            assert np.isnan(parts[line % 2]).all() and np.array_equal(parts[1 - line % 2], x[line, 1 - line % 2])


@pytest.mark.parametrize("implementation", ROUND, ids=lambda each: each.name)
def test_the_largest_numbers_stay_some(implementation: Implementation) -> None:
    for width in WIDTHS:
        x: Array = np.zeros((4, width), np.float32)
        for line, (value, place) in enumerate(((3e38, 0), (-3e38, width // 2), (MOST, width - 1), (-MOST, 0))):
            x[line, place] = value
        expected = hold(implementation, x, width)
        assert np.isfinite(expected).all() and np.abs(expected - x).max() < MOST / 127


@pytest.mark.parametrize("implementation", ROUND, ids=lambda each: each.name)
def test_scales_of_any_mantissa_are_rounded_to_the_nearest_of_two_the_even(implementation: Implementation) -> None:
    some = 20 if implementation.slow else 100
    for width in WIDTHS:
        r = np.random.default_rng(width)
        exact = (2.0 ** r.integers(-30, 30, (3 * some, 1)) * (1 + r.random((3 * some, 1)))).astype(np.float32)
        exact[::3] = (1 + (2 * r.integers(0, 128, (some, 1)) + 1) / 256) * 2.0 ** r.integers(-30, 30, (some, 1))  # ties
        largest = (exact * 127).astype(np.float32) * r.choice([-1, 1], exact.shape).astype(np.float32)
        stored = np.abs(rounded_line(largest, width=1)) / 127
        x = (r.integers(-125, 126, (len(exact), width)) + r.uniform(-0.4, 0.4, (len(exact), width))) * stored
        np.put_along_axis(x, r.integers(0, width, (len(exact), 1)), largest, -1)
        hold(implementation, x.astype(np.float32), width)


@pytest.mark.parametrize(("implementation", "op"), APPEND)
def test_pages_keep_the_largest_numbers_and_what_is_none(implementation: Implementation, op: str) -> None:
    """The cache alone is looked at: what attention makes of such lines is none of this."""
    inputs, parts = call_inputs(op, 5, [(0, 5), (33, 3)], packed=True), PARTS[op]
    middle, last = parts[0] // 2, sum(parts) - 1
    for row, (place, value) in enumerate(
        ((0, 3e38), (last, -MOST), (0, np.nan), (middle, np.inf), (last, np.nan)),
    ):
        inputs["entry"][row, place] = value
    case = OperatorCase(op, inputs, ATTRIBUTES[op])
    with np.errstate(all="ignore"):
        _, expected = OPERATORS[op].reference(**inputs, **ATTRIBUTES[op])
        _, cache = implementation(case)
    found, wanted = (unpack(each, parts, np.float32) for each in (cache, expected))
    assert np.array_equal(found, wanted, equal_nan=True) and found[np.isfinite(found)].max() > 2e38


@pytest.mark.parametrize(("implementation", "op"), APPEND)
def test_pages_keep_lines_that_are_not_rounded_yet_in_the_references_bytes(
    implementation: Implementation, op: str
) -> None:
    """Values in the middle of two integers, scales in the middle of two of theirs, parts of next to nothing."""
    inputs, parts = call_inputs(op, 6, [(0, 40), (33, 3)], packed=True), PARTS[op]
    r = np.random.default_rng(7)
    firsts = np.cumsum((0, *parts[:-1]))
    for first, width in zip(firsts, parts, strict=True):
        part = inputs["entry"][:, first : first + width]
        bits = r.integers(0, 256, (len(part), 1))  # of 7 bits in a mantissa, and one more
        scale = (1 + np.where(r.random(bits.shape) < 0.6, bits // 2 * 2, bits) / 256) * 2.0 ** r.integers(
            -120, 100, bits.shape
        )
        part[:] = (r.integers(-252, 253, part.shape) / 2 + 1e-3 * (r.random(part.shape) < 0.2)) * scale
        np.put_along_axis(part, r.integers(0, width, (len(part), 1)), (127 * scale).astype(np.float32), -1)
    inputs["entry"][3] = 0
    with np.errstate(all="ignore"):
        _, expected = reference_of(op)(**inputs, **ATTRIBUTES[op])
        _, cache = implementation(OperatorCase(op, inputs, ATTRIBUTES[op]))
    assert np.array_equal(cache, expected)
