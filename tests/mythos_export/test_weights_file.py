"""Weights flow: each is read when it is written, no two experts are held at once, and the model is the file."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from golden_bundles import GOLDEN, config_of
from safetensors.torch import load_file

from mythos_export.precision import PRECISIONS
from mythos_export.verify.weights import Weighing, prints
from mythos_export.weights_file import INLINE_BYTES, write_weights
from mythos_model import Checkpoint, load_checkpoint
from mythos_model.checkpoint.stored import Stored
from mythos_runtime.files import describe


def checkpoint() -> Checkpoint:
    return load_checkpoint(GOLDEN / "mla_prefill" / "model.safetensors", **config_of("mla_prefill"))


@pytest.mark.parametrize("precision", list(PRECISIONS))
def test_the_model_on_the_file_is_the_model_in_memory(precision: str, tmp_path: Path) -> None:
    loaded, chosen = checkpoint(), PRECISIONS[precision]
    file = write_weights(chosen.structure(loaded), loaded.sources, tmp_path / "weights", Weighing)
    assert file.entry == describe(tmp_path / "weights")
    expected, found = chosen.model(loaded).state_dict(), file.model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    assert file.prints == {name: each.of(expected[name]) for name, each in file.prints.items()}
    assert prints(file.model, file.prints) == prints(file.model)
    stored = load_file(tmp_path / "weights")
    assert stored.keys() == {name for name, tensor in expected.items() if tensor.nbytes > INLINE_BYTES}
    ids = torch.arange(12).view(2, 6)
    logits = chosen.model(loaded)(ids).logits  # a matrix that is transposed is summed in another order
    # A value near the middle of two integers is rounded to either, by the last bit of a sum.
    limit = 5e-2 if precision.endswith("a8") else 1e-2 if precision == "fp16" else 1e-5
    assert (file.model(ids).logits - logits).abs().max() <= limit * logits.abs().max()


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_one_tensor_is_held_at_a_time(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted by the tensors that were read of the checkpoint and are still there when the next one is."""
    loaded = checkpoint()
    read: list[weakref.ref[torch.Tensor]] = []
    most, times = 0, 0
    make = Stored.tensor

    def watched(self: Stored) -> torch.Tensor:
        nonlocal most, times
        tensor = make(self)
        times += 1
        read.append(weakref.ref(tensor))
        most = max(most, sum(each() is not None for each in read))
        return tensor

    monkeypatch.setattr(Stored, "tensor", watched)
    structure = PRECISIONS[precision].structure(loaded)
    assert times == 0
    write_weights(structure, loaded.sources, tmp_path / "weights")
    assert times == len(loaded.state)  # each once
    shared = 2 * loaded.config.n_shared_experts  # gate and up of them are one matrix of the model
    assert most <= max(shared, 3) + 2


def test_an_address_tells_where_in_the_file_something_lies(tmp_path: Path) -> None:
    loaded = checkpoint()
    file = write_weights(PRECISIONS["fp32"].structure(loaded), loaded.sources, tmp_path / "weights")
    turned = dict(_turned(file.model))
    assert turned
    for name, tensor in file.model.state_dict().items():
        if name in file.places:
            assert file.place(tensor.T if name in turned else tensor) == file.places[name]
            assert (file.place(tensor) is None) == (name in turned)
    copied = file.model.state_dict()["embed.weight"].clone()
    assert file.place(copied) is None and file.place(copied.numpy()) is None
    file.forget()
    assert torch.equal(file.model.state_dict()["embed.weight"], copied)


def _turned(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A linear layer's matrix, as MatMul takes it."""
    for name, module in model.named_modules():
        if type(module) is torch.nn.Linear:
            yield f"{name}.weight", module.weight
