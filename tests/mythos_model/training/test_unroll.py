"""Training looks at the same model that inference runs: loops, halting and read-out agree."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mythos_model import MythosModel
from mythos_model.training import Hops, Text
from mythos_model.training.unroll import halt, read_out, unroll

SMALL = {
    "mla": dataclasses.replace(Hops.config, vocab_size=40, max_loop_iters=5),
    "gqa": dataclasses.replace(Text.config, vocab_size=40, dim=64, max_loop_iters=5),
}


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("halt_bias", [-3.0, -0.5, 2.0])
def test_unrolled_model_is_the_model(kind: str, halt_bias: float) -> None:
    model = MythosModel(SMALL[kind]).reset_parameters(seed=3, halt_bias=halt_bias)
    ids = torch.randint(0, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids, max_loops=7)
        run = unroll(model, ids, 7)
        ended = halt(run.halt_logits, model.config.act_threshold)
        logits = read_out(model, (ended.weights.unsqueeze(-1) * run.states).sum(0), run.past)
    assert torch.equal(ended.depth, expected.depth.long())
    torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_load_counts_every_choice() -> None:
    model = MythosModel(SMALL["mla"]).reset_parameters()
    load = unroll(model, torch.zeros(2, 5, dtype=torch.int64), 3).load
    assert float(load.sum()) == pytest.approx(model.config.n_experts_per_tok)


def test_first_loop_index_matters_and_detach_cuts_the_gradient() -> None:
    model = MythosModel(SMALL["mla"]).reset_parameters()
    ids = torch.arange(6).view(1, 6)
    early, late = unroll(model, ids, 2).states, unroll(model, ids, 2, first=9).states
    assert not torch.allclose(early, late)

    def gradient(detach: tuple[bool, ...]) -> torch.Tensor:
        model.zero_grad()
        unroll(model, ids, 3, detach=detach).states[-1].sum().backward()
        gradient = model.recurrent.block.attn.wo.weight.grad
        assert gradient is not None
        return gradient.clone()

    assert not torch.allclose(gradient((False, True, True)), gradient(()))


def test_ponder_cost_pulls_towards_fewer_loops() -> None:
    logits = torch.full((6, 1, 1), -1.0, requires_grad=True)
    halt(logits, 0.99).ponder.sum().backward()
    assert logits.grad is not None
    before_halting = logits.grad[: int(halt(logits.detach(), 0.99).depth) - 1]
    assert (before_halting < 0).all()  # descending raises the halting probability
