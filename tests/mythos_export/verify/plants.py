"""What used to slip past: plants in the eager model, which the golden cases alone have to catch.

The model with a plant in it answers as a stage would, so a plant costs a second and no export. Most of them show in
some inputs only: far positions, full blocks of keys, padding on the left, more loops than were trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_bundles import GOLDEN
from torch import Tensor

from mythos_export.verify.cases import Question
from mythos_export.verify.compare import Problem, compare
from mythos_export.verify.golden import Golden
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
