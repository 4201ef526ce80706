"""Block-wise int8 and int4 weights: the layout, the rounding, and the model over them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mythos_model import ModelError, MythosModel, load_checkpoint
from mythos_model.blockwise import BLOCK, TILE, dequantize, quantize
from mythos_model.pretrained import folder
from mythos_model.quantized import quantize_model

FORMS = ("int8", "int4")


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40), inputs=st.integers(1, 100), seed=st.integers(0, 999), size=st.sampled_from([1e-3, 1, 300])
)
def test_how_far_a_weight_is_rounded(form: str, rows: int, inputs: int, seed: int, size: float) -> None:
    weight = torch.randn(2, rows, inputs, generator=torch.Generator().manual_seed(seed)) * size
    packed = quantize(weight, form)
    found = dequantize(*packed, rows, inputs)
    assert found.shape == weight.shape
    step = packed.scale.float().abs().repeat_interleave(BLOCK, -2).transpose(-1, -2).flatten(1, 2)
    off = (found - weight).abs() / step[:, :rows, :inputs]
    # int4 gives up to a fifth of a block's largest weights, where that serves the others.
    assert off.max() <= (0.5001 if form == "int8" else 3.01)
    assert off.median() <= 0.5001


def test_the_layout_is_the_documented_one() -> None:
    weight = torch.arange(1, 18).float().outer(torch.linspace(-1, 1, 33))  # 17 rows: a second tile; 33 inputs: blocks
    for form, lanes in (("int8", 16), ("int4", 8)):
        packed = quantize(weight, form)
        assert packed.weight.shape == (2, 64, lanes) and packed.scale.shape == (2, 2, TILE)
        for row, column in ((0, 0), (9, 5), (16, 32)):
            tile, lane = divmod(row, TILE)
            if form == "int8":
                q = int(packed.weight[tile, column, lane])
            else:
                byte = int(packed.weight[tile, column, lane % 8])
                q = (byte >> 4 if lane >= 8 else byte & 15) - 8
            scale = packed.scale[tile, column // BLOCK, lane].float()
            assert dequantize(*packed, 17, 33)[row, column] == q * scale


@pytest.mark.parametrize("form", FORMS)
def test_nothing_and_too_much(form: str) -> None:
    assert not dequantize(*quantize(torch.zeros(3, 40), form), 3, 40).any()
    with pytest.raises(ModelError, match="float16"):
        quantize(torch.full((1, 32), 1e9), form)


@pytest.mark.parametrize("form", FORMS)
def test_the_model_is_that_of_its_rounded_weights(form: str) -> None:
    loaded = load_checkpoint(folder("hops"))
    model = quantize_model(MythosModel.from_state(loaded.config, loaded.state, torch.float32), form)
    ids = torch.randint(0, loaded.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(1))
    plain = MythosModel.from_state(loaded.config, model.reference_state(), torch.float32)
    found, expected = model(ids), plain(ids)
    assert (found.logits - expected.logits).abs().max() <= 1e-5 * expected.logits.abs().max()
    assert torch.equal(found.depth, expected.depth)
    kept = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    assert {"recurrent.block.ffn.router.weight", "recurrent.lora.B", "norm.weight"} <= kept
    assert not any("gate" in name or "wo" in name or "embed" in name for name in kept)
