"""The model over rounded weights: every family's matrices, and what its family keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_families import GOLDEN, cases

from mythos_model import load_checkpoint
from mythos_model.formats import ROUNDED
from mythos_model.pretrained import folder
from mythos_model.quantized import quantize_model

MODELS = {"openmythos": folder("hops"), "ouro": GOLDEN / cases("ouro")[0]}
KEPT = {
    "openmythos": {"recurrent.block.ffn.router.weight", "recurrent.lora.B", "norm.weight"},
    "ouro": {"gate.gate.weight", "norm.weight"},
}


@pytest.mark.parametrize("form", ROUNDED)
@pytest.mark.parametrize("family", MODELS)
def test_the_model_is_that_of_its_rounded_weights(family: str, form: str) -> None:
    checkpoint = load_checkpoint(Path(MODELS[family]))
    model = checkpoint.model(torch.float32)
    quantize_model(model, form, model.keeps)
    ids = torch.randint(0, model.spec.vocab_size, (2, 9), generator=torch.Generator().manual_seed(1))
    plain = type(model).from_state(checkpoint.config, model.reference_state(), torch.float32)
    found, expected = model(ids, max_loops=3), plain(ids, max_loops=3)
    assert (found.logits - expected.logits).abs().max() <= 1e-5 * expected.logits.abs().max()
    assert torch.equal(found.depth, expected.depth)
    kept = {name for name, tensor in model.state_dict().items() if tensor.dtype == torch.float32}
    assert KEPT[family] <= kept
    matrices = {name for name in kept if model.state_dict()[name].dim() > 1}
    assert all(model.keeps(name) for name in matrices)


def test_other_precisions_and_formats_are_refused() -> None:
    model = load_checkpoint(folder("hops")).model(torch.float16)
    with pytest.raises(ValueError, match="only a float32 model can be quantised, this one has torch.float16"):
        quantize_model(model, "int8", model.keeps)
    with pytest.raises(ValueError, match="there is no block-wise form 'int3'; there are int8, int4"):
        quantize_model(model, "int3", model.keeps)
