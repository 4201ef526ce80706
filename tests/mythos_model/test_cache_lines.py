"""Rounding cache lines to int8: exact where it says so, and the model over them the same in any chunks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from golden_bundles import GOLDEN, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mythos_model import ModelError, MythosModel, load_checkpoint
from mythos_model.attention import Attention
from mythos_model.cache_lines import LEAST, pack, rounded_line, unpack
from mythos_model.rows import RowParts
from mythos_runtime.row_ports import STEP


@st.composite
def lines(draw: st.DrawFn) -> tuple[Tensor, tuple[int, ...]]:
    """Lines whose parts are of very different size."""
    parts = tuple(draw(st.lists(st.sampled_from([1, 2, 7, 16, 33]), min_size=1, max_size=4)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    sizes = [torch.exp(9 * torch.randn(6, 1, generator=generator)).expand(6, width) for width in parts]
    return torch.randn(6, sum(parts), generator=generator) * torch.cat(sizes, -1), parts


def split(x: Tensor, parts: tuple[int, ...]) -> list[Tensor]:
    return list(x.split(list(parts), -1))


@settings(max_examples=40, deadline=None)
@given(lines())
def test_packed_and_unpacked_is_rounded(drawn: tuple[Tensor, tuple[int, ...]]) -> None:
    x, parts = drawn
    rounded = torch.cat([rounded_line(part, part.shape[-1]) for part in split(x, parts)], -1)
    packed = pack(x, parts)
    assert packed.dtype == torch.int8 and packed.shape[-1] == sum(parts) + 2 * len(parts)
    assert torch.equal(unpack(packed, parts, torch.float32), rounded)
    assert torch.equal(unpack(packed, parts, torch.float64), rounded.double())  # exact in float32
    assert torch.equal(pack(rounded, parts), packed)  # and rounding what is rounded changes nothing
    for part, values in zip(split(x, parts), split(rounded, parts), strict=True):
        most = part.abs().amax(-1, keepdim=True)
        assert ((part - values).abs() <= most / 127 * 0.503).all()  # half a step, whose scale is off by 1/256 at most
        assert torch.equal(values[most[:, 0] == 0], torch.zeros_like(values[most[:, 0] == 0]))


def test_edges_of_the_numbers() -> None:
    nothing = torch.tensor([[0.0, 0.0], [LEAST / 2, -LEAST / 4]])
    assert not rounded_line(nothing, 2).any() and not pack(nothing, (2,)).any()
    large = torch.tensor([[3e38, -1e38]])
    assert (rounded_line(large, 2) - large).abs().max() < 3e38 / 127
    for broken in (torch.nan, torch.inf):
        x = torch.tensor([1.0, broken, 5.0, 6.0])
        for found in (rounded_line(x, 2), unpack(pack(x, (2, 2)), (2, 2), torch.float32)):
            assert found[:2].isnan().all() and torch.allclose(found[2:], x[2:], rtol=0.01)


@pytest.fixture(params=["mla_prefill", "gqa_prefill"])
def model(request: pytest.FixtureRequest) -> MythosModel:
    checkpoint = load_checkpoint(GOLDEN / request.param / "model.safetensors", **config_of(request.param))
    made = checkpoint.model(torch.float32)
    assert isinstance(made, MythosModel)
    return made


def test_a_model_over_rounded_lines(model: MythosModel) -> None:
    ids = torch.arange(9)[None] % model.config.vocab_size
    plain = model(ids, early_exit=False)
    parts = next(module for module in model.modules() if isinstance(module, Attention)).parts
    assert sum(parts) == model.sizes.line and model.rounded_parts == ()
    rounded = model.with_int8_cache()
    assert rounded is model and model.rounded_parts == tuple(parts) == model.exact().rounded_parts
    whole = model(ids, early_exit=False)
    off = (whole.logits - plain.logits).abs().max() / plain.logits.abs().max()
    assert 1e-5 < off < 0.5  # random weights, and experts that were nearly as good
    assert (model.exact()(ids, early_exit=False).logits - whole.logits).abs().max() < 1e-4 * whole.logits.abs().max()

    # What attention reads of the tokens of its own call is what it reads of the cache: in two calls it is the same.
    past = {name: torch.zeros(*new.shape[:-2], 9, new.shape[-1]) for name, new in whole.new.items()}
    first = model(ids[:, :4], past=past, early_exit=False)
    for name, new in first.new.items():
        past[name][..., :4, :] = new
        again = torch.cat([rounded_line(part, part.shape[-1]) for part in split(new, tuple(parts))], -1)
        assert torch.equal(again, new)
    second = model(ids[:, 4:], past=past, past_lengths=torch.tensor([4]), early_exit=False)
    assert (second.logits - whole.logits[:, 4:]).abs().max() < 1e-4 * whole.logits.abs().max()
    assert torch.equal(model.with_int8_cache(False)(ids, early_exit=False).logits, plain.logits)


def test_row_graphs_take_pages_of_bytes(model: MythosModel) -> None:
    spec = model.with_int8_cache().spec
    (port,) = [port for port in spec.graphs[STEP].inputs if port.role == "cache"]
    group = spec.cache("loop")
    assert group is not None and port.dtype == "int8" and port.dims[-1] == group.width + 2 * len(group.rounded)
    named = {name: torch.zeros(1, model.sizes.dim) for name in ("encoded", "h", "out")}
    named |= {"cumulative": torch.zeros(1), "halted": torch.zeros(1, dtype=torch.bool)}
    named |= {"depth": torch.zeros(1, dtype=torch.int32), "loop": torch.zeros(1, dtype=torch.int64)}
    named |= {"last": torch.zeros(1, dtype=torch.bool), "halt_threshold": torch.ones(1)}
    named |= {"position": torch.zeros(1, dtype=torch.int64), "span": torch.zeros(1, dtype=torch.int64)}
    named |= {
        "tables": torch.zeros(1, 1, dtype=torch.int64),
        port.name: torch.full((1, *port.dims[1:]), -1).to(torch.int8),
    }
    named["encoded"].normal_(generator=torch.Generator().manual_seed(0))
    out = RowParts(model).run(STEP, *(named[each.name] for each in spec.graphs[STEP].inputs))
    cache = out[-1]
    assert cache.dtype == torch.int8 and torch.isfinite(out[0]).all()
    assert cache[0, 0].any() and (cache[0, 1:] == -1).all()


def test_half_precision_is_refused(model: MythosModel) -> None:
    half = MythosModel(dataclasses.replace(model.config)).to(torch.float16)
    with pytest.raises(
        ModelError, match=r"compute in float32, and this one computes in torch.float16; load it in float32"
    ):
        half.with_int8_cache()


def test_layers_that_round_nothing_are_refused(model: MythosModel, monkeypatch: pytest.MonkeyPatch) -> None:
    other = MythosModel(model.config)
    monkeypatch.setattr(other, "modules", lambda: iter(()))
    with pytest.raises(ModelError, match="its 0 layers of mythos_model.attention do not fill lines of one kind"):
        other.with_int8_cache()
