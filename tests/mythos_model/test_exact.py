"""The float64 model over weights that stay as they are computes what a copy in float64 computes, and copies none."""

from __future__ import annotations

import pytest
import torch
from golden_bundles import GOLDEN, config_of
from golden_families import GoldenCase

from mythos_export.precision import PRECISIONS
from mythos_model import Checkpoint, load_checkpoint, looped, products
from mythos_model.exact import widened


def checkpoint(name: str) -> Checkpoint:
    if name.startswith(("mla", "gqa")):
        return load_checkpoint(GOLDEN / name / "model.safetensors", **config_of(name))
    case = GoldenCase.load(name)
    return load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.parametrize("name", ["mla_prefill", "gqa_prefill", "ouro_exit_decode"])
def test_no_matrix_is_copied_and_nothing_differs(name: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_TOGETHER", 1000)  # several blocks of each matrix
    model = PRECISIONS[precision].model(checkpoint(name))
    copied, exact = model.exact(), widened(model)
    ids = torch.arange(14).view(2, 7)
    expected, found = copied(ids), exact(ids)
    assert exact.dtype == found.logits.dtype == torch.float64 == expected.logits.dtype
    assert (found.logits - expected.logits).abs().max() <= 1e-12 * expected.logits.abs().max()
    assert torch.equal(found.depth, expected.depth)
    one = exact(ids[:1, :1]).logits - copied(ids[:1, :1]).logits
    assert one.abs().max() <= 1e-12 * expected.logits.abs().max()
    assert model(ids).logits.dtype == torch.float32


def test_a_large_model_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looped, "_LARGE", 0)
    model = checkpoint("mla_prefill").model(torch.float32)
    exact = model.exact()
    held = {tensor.data_ptr() for tensor in model.state_dict().values()}
    mine = [tensor for tensor in exact.state_dict().values() if tensor.dtype == torch.float32]
    assert mine and all(tensor.data_ptr() in held for tensor in mine)
