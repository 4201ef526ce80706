"""Weight formats: the layout, and the rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos_export.kernels.formats import float8
from mythos_model import ModelError
from mythos_model.formats import FORMATS, ROUNDED


@pytest.mark.parametrize("form", ROUNDED)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40), inputs=st.integers(1, 100), seed=st.integers(0, 999), size=st.sampled_from([1e-3, 1, 300])
)
def test_how_far_a_weight_is_rounded(form: str, rows: int, inputs: int, seed: int, size: float) -> None:
    weight = torch.randn(2, rows, inputs, generator=torch.Generator().manual_seed(seed)) * size
    packed, scale = FORMATS[form].pack(weight)
    assert scale is not None
    found = FORMATS[form].unpack(packed, scale, rows, inputs)
    assert found.shape == weight.shape
    step = scale.float().abs().repeat_interleave(FORMATS[form].block or 128, -2).transpose(-1, -2).flatten(1, 2)
    step = step[:, :rows, :inputs]
    if form == "fp8":  # half of the last of three bits; below 2**-6, of a subnormal's
        step = step * torch.frexp((weight / step).abs().clamp(min=2.0**-6))[1].sub(4).exp2()
    off = (found - weight).abs() / step
    # int4 gives up to a fifth of a block's largest weights, where that serves the others.
    assert off.max() <= (3.01 if form.startswith("int4") else 0.5001)
    assert off.median() <= 0.5001


def test_the_layout_is_the_documented_one() -> None:
    weight = torch.arange(1, 18).float().outer(torch.linspace(-1, 1, 33))  # 17 rows: a second tile; 33 inputs: blocks
    for form, group in (("int8", 4), ("int4", 8)):
        packed, scale = FORMATS[form].pack(weight)
        assert packed.shape == (2, 64 // group, 16, 4) and scale is not None and scale.shape == (2, 2, 16)
        for row, column in ((0, 0), (9, 5), (16, 32)):
            tile, lane = divmod(row, 16)
            byte = int(packed[tile, column // group, lane, column % 4])
            q = byte if form == "int8" else (byte >> 4 if column % 8 >= 4 else byte & 15) - 8
            found = FORMATS[form].unpack(packed, scale, 17, 33)
            assert found[row, column] == q * scale[tile, column // 32, lane].float()


def test_float8_is_the_nearest_number_and_of_two_the_even_one() -> None:
    """Every number, every middle of two, and what is on either side of it; the numbers as arithmetic has them."""
    numbers = torch.from_numpy(float8(np.arange(0x7F)))  # 0 to 448
    assert torch.equal(numbers, torch.arange(0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float())
    middles = (numbers[1:] + numbers[:-1]) / 2
    below, above = (torch.nextafter(middles, torch.full_like(middles, end)) for end in (0.0, 500.0))
    even = torch.arange(0x7E) + torch.arange(0x7E) % 2
    given_bits = [(numbers, torch.arange(0x7F)), (middles, even), (below, even.new_tensor(range(0x7E)))]
    for values, bits in [*given_bits, (above, even.new_tensor(range(1, 0x7F)))]:
        row = torch.cat([values, -values, torch.tensor([448.0])])  # the largest makes the scale 1
        weight, scale = FORMATS["fp8"].pack(row[None])
        assert scale is not None and scale[0, 0, 0] == 1 and weight.dtype == torch.int8
        found = weight[0, :, 0].flatten()[: len(row) - 1].view(torch.uint8).long()
        assert torch.equal(found, torch.cat([bits, bits + 128]))


def test_one_scale_serves_a_row_of_float8() -> None:
    weight, scale = FORMATS["fp8"].pack(torch.randn(3, 17, 70))
    assert weight.shape == (3, 2, 96 // 4, 16, 4) and scale is not None and scale.shape == (3, 2, 1, 16)
    weight, scale = FORMATS["fp8"].pack(torch.ones(4, 0))  # of no shared expert
    assert weight.shape == (1, 8, 16, 4) and FORMATS["fp8"].unpack(weight, scale, 4, 0).numel() == 0
    tiny = torch.tensor([[1e-9, -3e-6, 2e-6]])  # a scale that is a subnormal float16 loses nothing
    found = FORMATS["fp8"].unpack(*FORMATS["fp8"].pack(tiny), 1, 3)
    assert (found - tiny).abs().max() <= 2**-4 * tiny.abs().max()


@pytest.mark.parametrize("form", ROUNDED)
def test_nothing_and_too_much(form: str) -> None:
    packed = FORMATS[form].pack(torch.zeros(3, 40))
    assert not FORMATS[form].unpack(*packed, 3, 40).any()
    with pytest.raises(ModelError, match="float16"):
        FORMATS[form].pack(torch.full((1, 32), 1e9))
    with pytest.raises(ModelError, match="not a number"):
        FORMATS[form].pack(torch.full((1, 32), torch.nan))


def test_a_scale_comes_with_what_was_rounded_and_with_nothing_else() -> None:
    weight, scale = FORMATS["int4"].pack(torch.ones(16, 32))
    with pytest.raises(ValueError, match="found no scale beside weights in the format int4, expected one"):
        FORMATS["int4"].unpack(weight, None)
    with pytest.raises(ValueError, match="found a scale beside weights in the format plain, expected none"):
        FORMATS["plain"].unpack(torch.ones(3, 3), scale)
