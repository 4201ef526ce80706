"""The model over rounded weights."""

from __future__ import annotations

import pytest
import torch

from mythos_model import MythosModel, load_checkpoint
from mythos_model.formats import ROUNDED
from mythos_model.pretrained import folder
from mythos_model.quantized import quantize_model


@pytest.mark.parametrize("form", ROUNDED)
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
