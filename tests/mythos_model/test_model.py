"""The eager model against the reference's golden cases, and its two drivers and attention forms against each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mythos_model import VARIANTS, MythosConfig, MythosModel, load_checkpoint, ops
from mythos_model.blocks import Rotary

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/case.json"))


def golden(case: str) -> tuple[MythosModel, dict[str, torch.Tensor], int]:
    description = json.loads((GOLDEN / case / "case.json").read_text())
    config = MythosConfig(**description["config"])
    model = MythosModel.from_state(config, load_file(GOLDEN / case / "model.safetensors"))
    return model, load_file(GOLDEN / case / "io.safetensors"), description["n_loops"]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("case", CASES)
def test_golden_cases(case: str) -> None:
    model, io, loops = golden(case)
    out = model(io["input_ids"].long(), max_loops=loops)
    assert relative(out.logits, io["logits"]) <= 1e-5
    assert torch.equal(out.depth, io["halting_depth"])
    assert int(out.loops) == int(out.depth.max())


def test_hops_at_and_beyond_its_trained_depth() -> None:
    checkpoint = load_checkpoint(GOLDEN / "hops" / "step_0001794.pt")
    model = MythosModel.from_state(checkpoint.config, checkpoint.state)
    io = load_file(GOLDEN / "hops" / "io.safetensors")
    for loops in (10, 16):
        out = model(io["input_ids"].long(), max_loops=loops)
        assert relative(out.logits[:, -1], io[f"logits_last_{loops}"]) <= 2e-5
        assert torch.equal(out.depth, io[f"halting_depth_{loops}"])


@pytest.mark.parametrize("case", ["mla_decode", "gqa_decode"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_stay_near_float32(case: str, dtype: torch.dtype) -> None:
    model, io, _ = golden(case)
    state = model.reference_state()
    out = MythosModel.from_state(model.config, state, dtype)(io["input_ids"].long(), max_loops=1)
    exact = model(io["input_ids"].long(), max_loops=1)
    assert out.new["loop"].dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.float16: 2e-2, torch.bfloat16: 2e-1}[dtype]
    assert relative(out.logits.float(), exact.logits) <= tolerance


def test_no_loops_is_no_loops() -> None:
    model, io, _ = golden("mla_prefill")
    out = model(io["input_ids"].long(), max_loops=0)
    assert int(out.loops) == 0
    assert not out.depth.any()
    assert torch.isfinite(out.logits).all()


def test_variants_report_their_size() -> None:
    billions = {name: config.parameter_count() / 1e9 for name, config in VARIANTS.items()}
    stated = {"1b": 1.06, "3b": 3.04, "10b": 9.98, "50b": 50.4, "100b": 99.5, "500b": 498, "1t": 999}
    assert billions == pytest.approx(stated, rel=5e-3)
    small = golden("mla_prefill")[0]
    assert small.config.parameter_count() == sum(p.numel() for p in small.parameters())


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 6),
    past=st.integers(0, 7),
    heads=st.integers(1, 3),
    seed=st.integers(0, 1 << 16),
)
def test_absorbed_and_expanded_attention_agree(tokens: int, past: int, heads: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    nope, v, latent, rope = 4, 5, 6, 2
    keys = draw(2, past + tokens, latent + rope)
    mask = torch.zeros(2, 1, tokens, past + tokens, dtype=torch.float64)
    arguments = (draw(2, heads, tokens, nope), draw(2, heads, tokens, rope), keys, mask)
    weights = (draw(heads, nope, latent), draw(heads, v, latent), 0.3)
    absorbed, expanded = ops.mla_absorbed(*arguments, *weights), ops.mla_expanded(*arguments, *weights)
    torch.testing.assert_close(absorbed, expanded, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", ["mla_decode", "gqa_decode"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_split_into_chunks_gives_the_same(case: str, data: st.DataObject) -> None:
    """A cache with every depth run: chunks of any size, in a capacity buffer full of garbage behind the lengths."""
    model, io, loops = golden(case)
    ids = io["input_ids"].long()
    B, T = ids.shape
    cuts = data.draw(st.lists(st.integers(1, T - 1), unique=True, max_size=4).map(sorted))
    layers, C = model.config.prelude_layers + model.config.coda_layers, model.config.cache_dim
    past = {"layers": torch.full((layers, B, T + 2, C), 1e3), "loop": torch.full((loops, B, T + 2, C), 1e3)}
    for start, end in zip([0, *cuts], [*cuts, T], strict=True):
        lengths = torch.full((B,), start)
        out = model(
            ids[:, start:end],
            past_lengths=lengths,
            max_loops=loops,
            early_exit=False,
            past=past,
        )
        for group, new in out.new.items():
            past[group][:, :, start:end] = new
        assert (out.logits - io["logits"][:, start:end]).abs().max() <= 5e-5 * io["logits"].abs().max()
        assert torch.equal(out.depth, io["halting_depth"][:, start:end])


def test_padding_and_neighbours_change_nothing() -> None:
    model, io, loops = golden("mla_prefill")
    ids = io["input_ids"].long()
    alone = model(ids[:1, :6], max_loops=loops)
    positions = torch.arange(8).expand(3, 8).clone()
    positions[0, 6:] = -1
    together = model(ids[:, :8], positions=positions, max_loops=loops)
    assert relative(together.logits[:1, :6], alone.logits) <= 1e-5
    assert torch.equal(together.depth[:1, :6], alone.depth)
    assert not together.depth[0, 6:].any()


def test_of_equal_experts_the_first_are_chosen() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    for choose in (ops.largest, torch.ops.mythos.largest):
        assert choose(scores, 2).tolist() == [[1, 2], [0, 1]]
    many = torch.zeros(3, 200)
    assert ops.largest(many, 8).tolist() == [[*range(8)]] * 3


@pytest.mark.parametrize(("width", "theta"), [(64, 5e5), (128, 1e4), (6, 0.25)])
def test_rotary_angles_are_as_exact_far_away_as_near(width: int, theta: float) -> None:
    """Angles of 10^6 made in float32 are off by 0.06 before their cosine is taken."""
    positions = torch.cat([torch.arange(40), torch.arange((1 << 20) - 40, 1 << 20), torch.tensor([(1 << 31) - 1])])
    exact = Rotary.at(positions[None], width, theta, torch.float64)
    found = Rotary.at(positions[None], width, theta, torch.float32)
    for mine, its in zip(found, exact, strict=True):
        assert (mine - its)[:, :-1].abs().max() < 4e-7 and (mine - its)[:, -1].abs().max() < 4e-6


def test_rotary_angles_add_up() -> None:
    """As the row graphs of long models take them from two tables."""
    positions = torch.arange((1 << 20) - 3000, 1 << 20)
    far, near = (Rotary.at(p, 64, 5e5, torch.float32) for p in (positions // 1024 * 1024, positions % 1024))
    for mine, its in zip(far.plus(near), Rotary.at(positions, 64, 5e5, torch.float64), strict=True):
        assert (mine - its).abs().max() < 8e-7
