"""Generation on real bundles: choices, ends, budgets and drafts."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from golden_bundles import GOLDEN, Bundles
from prompts import prompts

from mythos_model import MythosModel, load_checkpoint
from mythos_runtime import Model, RequestError, load
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.generate import generate
from mythos_runtime.generate_options import GenerateOptions


def test_greedy_generation_is_the_same_everywhere(bundles: Bundles) -> None:
    checkpoint = load_checkpoint(GOLDEN / "hops" / "step_0001794.pt")
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    model = load(bundles["hops"])
    count = min(64, model.spec.max_seq_len - 8)
    rows = prompts(model, [5, 2, 8])
    ragged = model.generate_all(rows, max_new_tokens=count)
    for row, prompt in enumerate(rows):
        assert model.generate_all(prompt, max_new_tokens=count, prefill_chunk=3).tokens[0] == ragged.tokens[row]
        ids = torch.tensor([prompt])
        for token in ragged.tokens[row]:
            assert int(eager(ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert ragged.stop_reasons == ["length"] * 3


def test_sampling_is_repeatable_and_rows_do_not_disturb_each_other(model: Model) -> None:
    rows = prompts(model, [3, 5])
    options = {"max_new_tokens": 6, "temperature": 1.5, "top_k": 40, "top_p": 0.95, "seed": 7}
    first, second = model.generate_all(rows, **options), model.generate_all(rows, **options)
    assert first.tokens == second.tokens
    assert model.generate_all(rows[:1], **options).tokens[0] == first.tokens[0]
    assert model.generate_all(rows, **{**options, "seed": 8}).tokens != first.tokens


def test_a_closed_model_gives_no_more_tokens(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"])
    steps = model.generate([[1, 2]], max_new_tokens=4)
    next(steps)
    model.close()
    with pytest.raises(RequestError, match="closed"):
        next(steps)


def test_the_options_that_can_be_passed_on_are_those_of_generate() -> None:
    taken = inspect.signature(generate).parameters.values()
    expected = {each.name: each.annotation for each in taken if each.kind is inspect.Parameter.KEYWORD_ONLY}
    declared = {name: each.__forward_arg__ for name, each in GenerateOptions.__annotations__.items()}
    assert declared == expected


def test_a_result_is_shown_in_a_line(model: Model) -> None:
    shown = repr(model.generate_all([[1, 2], [3]], max_new_tokens=3))
    assert shown.startswith("GenerationResult(2 rows, 6 tokens, ") and len(shown) < 200


def test_ends(model: Model) -> None:
    rows = prompts(model, [3, 4])
    free = model.generate_all(rows, max_new_tokens=6).tokens
    ended = model.generate_all(rows, max_new_tokens=6, eos=free[0][1])
    at = free[0].index(free[0][1])
    assert ended.tokens[0] == free[0][: at + 1]
    assert ended.stop_reasons[0] == "eos"
    stopped = model.generate_all(rows[1], max_new_tokens=6, stop=[free[1][:2]])
    assert (stopped.tokens[0], stopped.stop_reasons) == (free[1][:2], ["stop"])


def test_a_budget_is_kept_and_told(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"])
    prompt = prompts(model, [5])
    options = {"max_new_tokens": 24, "halt_threshold": 5.0, "max_loops": 6}
    free = model.generate_all(prompt, **options)
    assert set(free.depth[0]) == {6}
    steps = list(model.generate(prompt, loops_per_token=2.5, **options))
    depth = [int(step.depth[0]) for step in steps]
    assert np.mean(depth) <= 2.5 and max(depth[1:]) <= 3
    assert [bool(step.capped[0]) for step in steps] == [False] + [True] * 23  # the first one is the prompt's
    assert [int(step.depth[0]) for step in model.generate(prompt, latency_ms=1e-6, **options)][1:] == [1] * 23
    for wrong in ({"loops_per_token": 0.5}, {"latency_ms": -1.0}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            model.generate(prompt, **wrong)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_change_nothing(model: Model, temperature: float) -> None:
    rows = prompts(model, [5, 1, 30])
    options = {"max_new_tokens": 20, "temperature": temperature, "seed": 5, "repetition_penalty": 1.1}
    plain = model.generate_all(rows, speculate="off", **options)
    for speculate in (1, 2, "auto"):
        drafted = model.generate_all(rows, speculate=speculate, **options)
        assert (drafted.tokens, drafted.depth) == (plain.tokens, plain.depth)
    counted = model.engine(EngineOptions(most_running=1, speculate=1)).usage
    assert 0 < counted.accepted < counted.drafted
