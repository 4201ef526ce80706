"""The model over rounded weights: every family's matrices, and what its family keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_families import GOLDEN, cases

from mythos_model import load_checkpoint
from mythos_model.formats import FORMATS, ROUNDED, round_activations
from mythos_model.pretrained import folder
from mythos_model.quantized import quantize_model

MODELS = {"openmythos": folder("hops"), "ouro": GOLDEN / cases("ouro")[0]}
KEPT = {
    "openmythos": {"recurrent.block.ffn.router.weight", "recurrent.lora.B", "norm.weight"},
    "ouro": {"gate.gate.weight", "norm.weight"},
}


@pytest.mark.parametrize("form", [form for form in ROUNDED if not FORMATS[form].activations])
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


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_activations_are_rounded_as_the_format_says(form: str) -> None:
    """The same weights; what they are multiplied by differs, by the nearest of 255 integers, in float64 too."""
    checkpoint = load_checkpoint(folder("hops"))
    ids = torch.arange(9).unsqueeze(0)
    models = {name: checkpoint.model(torch.float32) for name in (form, f"{form}a8")}
    for name, model in models.items():
        quantize_model(model, name, model.keeps)
    exact, rounded = (model.exact()(ids, max_loops=1).logits for model in models.values())
    assert exact.dtype == rounded.dtype == torch.float64
    off = (exact - rounded).abs().max() / exact.abs().max()
    assert 1e-4 < off < 5e-2
    assert (models[f"{form}a8"](ids, max_loops=1).logits - rounded).abs().max() <= 2e-2 * exact.abs().max()
    x = torch.tensor([[0.0, 127.0, -50.4, 2.5, 1.5, *[0.1] * 30, 1e-31]])
    assert round_activations(x, 32).tolist()[0][:6] == [0.0, 127.0, -50.0, 2.0, 2.0, 0.0]  # a half goes to the even one
    assert round_activations(x, 32)[0, -4:].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.0])
    assert not round_activations(x[:, -1:], 32).any()


@pytest.mark.parametrize("form", ROUNDED)
def test_results_lie_as_the_tracer_is_told(form: str) -> None:
    """Without the padding that products come with: a compiler takes its word for it, and would read past a row."""
    weight, scale = FORMATS[form].pack(torch.randn(37, 20))
    found = torch.ops.mythos.linear(torch.randn(3, 20), weight, scale, 37, form)
    assert found.shape == (3, 37) and found.is_contiguous()
    packed = [FORMATS[form].pack(torch.randn(shape)) for shape in ((2, 32, 37), (2, 37, 16), (32, 37), (37, 16))]
    routing = torch.tensor([[0], [1], [0]]), torch.ones(3, 1)
    experts = torch.ops.mythos.moe(torch.randn(3, 37), *routing, *(p[0] for p in packed), *(p[1] for p in packed), form)
    assert experts.shape == (3, 37) and experts.is_contiguous()


def test_other_precisions_and_formats_are_refused() -> None:
    model = load_checkpoint(folder("hops")).model(torch.float16)
    with pytest.raises(ValueError, match="only a float32 model can be quantised, this one has torch.float16"):
        quantize_model(model, "int8", model.keeps)
    with pytest.raises(ValueError, match="there is no block-wise form 'int3'; there are int8, .*, int4a8, fp8"):
        quantize_model(model, "int3", model.keeps)
