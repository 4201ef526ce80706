"""What used to slip past: plants in the eager model, which the golden cases alone have to catch.

The model with a plant in it answers as a stage would, so a plant costs a second and no export. Most of them show in
some inputs only: far positions, full blocks of keys, padding on the left, more loops than were trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from golden_bundles import GOLDEN
from torch import Tensor

from mythos_export.kernels.library import USUAL, cuts
from mythos_export.verify.cases import Case, Question
from mythos_export.verify.compare import Problem, compare
from mythos_export.verify.coverage import boundaries_of, coverage, missed, profiles_of
from mythos_export.verify.golden import Golden, make_golden
from mythos_export.verify.judgement import problems
from mythos_export.verify.ties import problem_at_tie
from mythos_export.verify.trace import Answer
from mythos_export.verify.truth import Truth
from mythos_model import LoopedModel, load_checkpoint, ops
from mythos_model.blocks import Rotary

Patch = pytest.MonkeyPatch
LONGEST = 4096


def model_of(case: str) -> LoopedModel:
    config = json.loads((GOLDEN / case / "case.json").read_text())["config"]
    return load_checkpoint(GOLDEN / case / "model.safetensors", config | {"max_seq_len": LONGEST}).model()


@pytest.fixture(scope="module", params=["gqa_decode", "mla_decode"])
def made(request: pytest.FixtureRequest) -> tuple[LoopedModel, Golden]:
    model = model_of(request.param)
    return model, make_golden(model, "fp32")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def found(model: LoopedModel, golden: Golden) -> Problem | None:
    """The first thing that is wrong with this model, by the cases and by the planted tie."""
    with torch.no_grad():
        truth = Truth(model)
        for case in golden.cases:
            seen = truth.watch(case.inputs)
            answer = Answer(truth.outputs(Question(case.name, case.inputs)), seen)
            wrong = compare(case, answer, golden.of(case)).problems
            if wrong:
                return wrong[0]
        assert golden.tie is not None
        return problem_at_tie(golden.spec, golden.tie, truth.watch)


def test_the_model_itself_passes_and_every_boundary_is_hit(made: tuple[LoopedModel, Golden]) -> None:
    model, golden = made
    assert found(model, golden) is None
    assert not missed(golden.coverage)
    assert all(not row.missed for row in golden.coverage), golden.coverage  # of these weights, all can be reached
    assert {row.parameter for row in golden.coverage} == golden.boundaries.keys()
    assert golden.text is not None and len(golden.text.prompt) < cuts().keys < len(golden.text.prompt) + 8


def test_few_loops_are_run(made: tuple[LoopedModel, Golden]) -> None:
    """The price of a case is its iterations: all of them together are few times the trained depth."""
    _, golden = made
    assert sum(len(case.trace) for case in golden.cases) <= 12 * golden.spec.trained_loops + 40


# -- plants ------------------------------------------------------------------------------------------------------------


def rotary(change: Callable[[Tensor], Tensor]) -> Callable[[Patch], None]:
    """The positions that angles are taken of are others."""

    def plant(patch: Patch) -> None:
        true = Rotary.at.__func__  # type: ignore[attr-defined]
        patch.setattr(Rotary, "at", classmethod(lambda cls, p, *a: true(cls, change(p), *a)))

    return plant


def float32_angles(patch: Patch) -> None:
    """Which are the more wrong the farther a position is."""

    def planted(cls: type[Rotary], positions: Tensor, width: int, theta: float, dtype: torch.dtype) -> Rotary:
        exponent = torch.arange(0, width, 2, dtype=dtype) / width
        angles = positions.to(dtype).unsqueeze(-1) * (theta**-exponent)
        return cls(torch.cos(angles), torch.sin(angles))

    patch.setattr(Rotary, "at", classmethod(planted))


def attention(change: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[Patch], None]:
    """Keys and mask of an attention are others."""

    def plant(patch: Patch) -> None:
        true = ops._keys_and_mask

        def planted(past: Tensor, layer: Tensor, chunk: Tensor, positions: Tensor, lengths: Tensor) -> Any:
            keys, mask = true(past, layer, chunk, positions, lengths)
            return change(keys, mask, past.shape[2], positions, lengths)

        patch.setattr(ops, "_keys_and_mask", planted)

    return plant


def lost_key(block: int, of: int) -> Callable[[Patch], None]:
    """The key `of` of every full block of the past is not seen."""

    def change(keys: Tensor, mask: Tensor, held: int, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        slots = torch.arange(keys.shape[1])
        full = (slots // block + 1) * block <= lengths.unsqueeze(1)
        lost = full & (slots % block == of) & (slots < held)
        return keys, mask.masked_fill(lost[:, None, None], ops.MASKED)

    return attention(change)


def lost_in_chunk(keys: Tensor, mask: Tensor, held: int, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The last key of a full block of new tokens is seen by nobody behind it."""
    mask = mask.clone()
    mask[..., 32:, held + 31 : held + 32] = ops.MASKED
    return keys, mask


def stray_nan(keys: Tensor, mask: Tensor, held: int, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """What is behind a row's length is multiplied by a weight of zero."""
    behind = (torch.arange(keys.shape[1]) >= lengths.unsqueeze(1)) & (torch.arange(keys.shape[1]) < held)
    return keys.masked_fill(behind.unsqueeze(-1), torch.nan), mask


def left_padding_seen(
    keys: Tensor, mask: Tensor, held: int, positions: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Padding before a row's first token is attended to."""
    before = (positions < 0) & (positions.cummax(1).values < 0)
    mask = mask.clone()
    mask[..., held:] = mask[..., held:].masked_fill((before & (positions >= 0).any(1, keepdim=True))[:, None, None], 0)
    return keys, mask


def by_index(keys: Tensor, mask: Tensor, held: int, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Padding between a row's tokens counts as a token."""
    inner = (positions < 0) & (positions.cummax(1).values >= 0) & (positions.flip(1).cummax(1).values.flip(1) >= 0)
    mask = mask.clone()
    mask[..., held:] = mask[..., held:].masked_fill(inner[:, None, None], 0)
    return keys, mask


def halting(change: Callable[..., dict[str, Tensor]]) -> Callable[[Patch], None]:
    """The halting operator is given something else."""

    def plant(patch: Patch) -> None:
        true = ops.act_halting
        names = ("h", "out", "cumulative", "halted", "depth", "weight", "bias", "threshold")

        def planted(*values: Tensor) -> Any:
            given = dict(zip(names, values, strict=True))
            return true(**(given | change(**given)))

        patch.setattr(ops, "act_halting", planted)

    return plant


def outputs(change: Callable[[dict[str, Tensor], dict[str, Tensor]], None]) -> Callable[[Patch], None]:
    """What a call puts out is changed, by what went in."""

    def plant(patch: Patch) -> None:
        true = LoopedModel.run

        def planted(self: LoopedModel, inputs: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
            found = dict(true(self, inputs, **options))
            change(inputs, found)
            return found

        patch.setattr(LoopedModel, "run", planted)

    return plant


def logits_where(condition: Callable[[dict[str, Tensor]], bool]) -> Callable[[Patch], None]:
    """0.05 is added to the logits of some calls."""

    def change(inputs: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        if condition(inputs):
            found["logits"] = found["logits"] + 0.05

    return outputs(change)


def depth_of_padding(inputs: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    found["depth"] = torch.where(inputs["positions"] < 0, 1, found["depth"]).to(torch.int32)


def unfilled_depths(inputs: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Depths that did not run stay empty, where the contract has them repeat the last one."""
    loops = int(found["loops"])
    found["new_loop"] = found["new_loop"].clone()
    found["new_loop"][max(loops, 1) :] = 0


def _left(inputs: dict[str, Tensor]) -> bool:
    first = inputs["positions"][:, 0] < 0
    return bool((first & (inputs["positions"] >= 0).any(1)).any())


def _whole_row(inputs: dict[str, Tensor]) -> bool:
    return bool((inputs["positions"] < 0).all(1).any())


def _threshold(inputs: dict[str, Tensor]) -> float:
    return float(inputs["halt_threshold"])


PLANTS: dict[str, Callable[[Patch], None]] = {
    "rope off from 9 on": rotary(lambda p: p + (p >= 9)),
    "rope off from 12 on": rotary(lambda p: p + (p >= 12)),
    "rope off from 33 on": rotary(lambda p: p + (p >= 33)),
    "rope off from 256 on": rotary(lambda p: p + (p >= 256)),
    "rope off from 2000 on": rotary(lambda p: p + (p >= 2000)),
    "rope off at the last position": rotary(lambda p: p + (p >= LONGEST - 1)),
    "angles in float32": float32_angles,
    "positions through bfloat16": rotary(lambda p: p.to(torch.bfloat16).to(torch.int64)),
    "positions through float16": rotary(lambda p: p.to(torch.float16).to(torch.int64)),
    "positions through 8 bits": rotary(lambda p: torch.where(p < 0, p, p & 255)),
    "the last key of a full block": lost_key(32, 31),
    "the first key of a full block": lost_key(32, 0),
    "a key of a full block of 64": lost_key(64, 7),
    "the last key of a block of the chunk": attention(lost_in_chunk),
    "NaN behind a length": attention(stray_nan),
    "left padding is attended to": attention(left_padding_seen),
    "inner padding is attended to": attention(by_index),
    "depth of padding 1": outputs(depth_of_padding),
    "depths that did not run are empty": outputs(unfilled_depths),
    "a remainder of a threshold below 0": halting(lambda threshold, **_: {"threshold": threshold.abs()}),
    "a threshold of at most 1": halting(lambda threshold, **_: {"threshold": threshold.clamp(max=1.0)}),
    "halting at > for >=": halting(
        lambda threshold, **_: {"threshold": torch.nextafter(threshold, torch.full_like(threshold, torch.inf))}
    ),
    "halting a unit too early": halting(
        lambda threshold, **_: {"threshold": torch.nextafter(threshold, torch.full_like(threshold, -torch.inf))}
    ),
    "left padding": logits_where(_left),
    "a row of padding": logits_where(_whole_row),
    "batch of 5": logits_where(lambda i: len(i["input_ids"]) >= 5),
    "13 tokens": logits_where(lambda i: i["input_ids"].shape[1] >= 13),
    "34 tokens": logits_where(lambda i: i["input_ids"].shape[1] >= 34),
    "a past of 17": logits_where(lambda i: bool((i["past_lengths"] >= 17).any())),
    "a past of 65": logits_where(lambda i: bool((i["past_lengths"] >= 65).any())),
    "a capacity of 18": logits_where(lambda i: i["past_loop"].shape[2] >= 18),
    "more depths than loops": logits_where(lambda i: len(i["past_loop"]) > max(int(i["max_loops"]), 1)),
    "9 loops": logits_where(lambda i: int(i["max_loops"]) >= 9),
    "16 loops": logits_where(lambda i: int(i["max_loops"]) >= 16),
    "a threshold of 0": logits_where(lambda i: _threshold(i) == 0),
    "a threshold below 0": logits_where(lambda i: _threshold(i) < 0),
    "a threshold above 1": logits_where(lambda i: 1 < _threshold(i) < 10),
}


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_is_caught_by_the_golden_cases(name: str, made: tuple[LoopedModel, Golden], monkeypatch: Patch) -> None:
    model, golden = made
    PLANTS[name](monkeypatch)
    problem = found(model, golden)
    assert problem is not None, f"{name} slips past"
    if name.startswith("depth"):
        assert problem.tensor in ("depth", "new_loop")
    if name.startswith("halting"):
        assert problem.tensor == "halted" and "where by the exit rule it" in problem.text


@pytest.mark.parametrize("loop", [1, 2, 3])
def test_leaving_in_any_loop_with_more_allowed_is_covered(
    loop: int, made: tuple[LoopedModel, Golden], monkeypatch: Patch
) -> None:
    model, golden = made

    def change(inputs: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        if int(found["loops"]) == loop < int(inputs["max_loops"]):
            found["logits"] = found["logits"] + 0.05

    outputs(change)(monkeypatch)
    problem = found(model, golden)
    assert problem is not None and problem.tensor == "logits"


def test_a_boundary_that_no_case_hits_is_a_failure_and_an_expert_that_nobody_chose_is_told(
    made: tuple[LoopedModel, Golden],
) -> None:
    _, golden = made
    few = replace(golden, cases=golden.cases[:2])
    lines = problems(few, [])
    assert any("no golden case has past of a row 1, 31, 32" in line for line in lines)
    assert any("no golden case has padding left" in line for line in lines)
    rare = replace(golden, boundaries={**golden.boundaries, "chosen experts": [0, 99]})
    assert not missed(rare.coverage)
    row = next(row for row in rare.coverage if row.parameter == "chosen experts")
    assert row.missed == (99,) and not row.sure


def test_boundaries_are_those_of_the_library_and_fit_a_short_context(made: tuple[LoopedModel, Golden]) -> None:
    spec = made[1].spec
    wide = replace(USUAL, keys=48, heights=(9,))
    found = boundaries_of(spec, wide, {"experts": 3})
    assert found["rows of a call"] == [8, 9, 10] and 97 in found["past of a row"]
    assert found["position"][-1] == LONGEST - 1 and found["chosen experts"] == [0, 1, 2]
    short = boundaries_of(replace(spec, max_seq_len=5), wide, {})
    assert max(int(value) for value in short["past of a row"]) == 2 and short["tokens"] == [1, 5]


def test_both_ends_of_an_engine_s_profiles_are_hit_and_what_is_too_large_is_told() -> None:
    model = model_of("mla_decode")
    ends = {"batch": (2, 6), "tokens": (1, 48), "capacity": (0, 40), "depths": (1, 9)}
    profiles = {"prefill": ends, "decode": ends | {"tokens": (1, 1), "capacity": (3, 10**6)}}
    golden = make_golden(model, "fp32", profiles=profiles)
    assert not missed(golden.coverage) and found(model, golden) is None
    rows = {row.parameter: row for row in golden.coverage if "profile" in row.parameter}
    assert [rows[f"{size} of the engine's profile prefill"].hit for size in ends] == [(2, 6), (1, 48), (0, 40), (1, 9)]
    large = rows["beyond what is asked: capacity of the engine's profile decode"]
    assert (large.missed, large.sure) == ((10**6,), False)
    ordinary = [case for case in golden.cases if "batch" not in case.name]
    few = problems(replace(golden, cases=tuple(ordinary)), [])
    assert any("no golden case has tokens of the engine's profile prefill 48" in line for line in few)


def test_profiles_are_read_out_of_the_manifest_s_details() -> None:
    spec = model_of("mla_decode").spec

    def shape(dims: Any, **sizes: int) -> list[int]:
        return [dim if isinstance(dim, int) else sizes[dim] for dim in dims]

    shapes = {
        port.name: [
            shape(port.dims, B=batch, T=3, P=past, N=loops) for batch, past, loops in ((1, 0, 1), (2, 4, 4), (8, 16, 8))
        ]
        for port in spec.ports.inputs
    }
    expected = {"batch": (1, 8), "tokens": (3, 3), "capacity": (0, 16), "depths": (1, 8)}
    assert profiles_of(spec, [{"name": "prefill", "shapes": shapes}]) == {"prefill": expected}


def test_the_case_of_a_far_position_is_judged_as_the_others(made: tuple[LoopedModel, Golden]) -> None:
    _, golden = made
    last: Case = next(case for case in golden.cases if case.name == f"position {LONGEST - 1}")
    assert golden.of(last) is golden.tolerances
    assert np.isfinite(coverage([last], golden.boundaries)[0].least or 0)


def test_routing_at_an_exact_tie_is_a_near_tie_and_no_failure() -> None:
    """Two experts of the same router row: whichever is chosen, nobody is wrong, and what depends on it is left out."""
    model = model_of("mla_decode")
    with torch.no_grad():
        mixture = model.recurrent.block.ffn
        for rows in (mixture.router.weight, mixture.router_bias):
            rows[1] = rows[0]
    golden = make_golden(model, "fp32")
    ties = [tie for result in golden.eager for tie in result.near_ties]
    assert all(result.problems == () for result in golden.eager)
    exact = [case for case in golden.cases if len(case.trace) and (case.margins["experts"] == 0).any()]
    assert exact and all(tie.decision.startswith("experts") for tie in ties)
