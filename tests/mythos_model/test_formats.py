"""Weight formats: the layout, and the rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    step = scale.float().abs().repeat_interleave(FORMATS[form].block, -2).transpose(-1, -2).flatten(1, 2)
    off = (found - weight).abs() / step[:, :rows, :inputs]
    # int4 gives up to a fifth of a block's largest weights, where that serves the others.
    assert off.max() <= (0.5001 if form.startswith("int8") else 3.01)
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
