"""`--precision auto`: a format for each group of matrices, so that the rounded model stays near the plain one.

    mix = choose_mix(checkpoint, max_kl=0.01, cases=path)
    mix.formats                 # {"embed": "int8", "recurrent.block.ffn": "int4", ...}; the others stay float32

How near is the Kullback-Leibler divergence of the rounded model's next-token distribution from the float32 model's, in
nats, as the mean over all positions of the data: `given_ids` of the cases, or ids that are drawn where there are none.

The search is greedy, and the same for the same checkpoint and data. First every group is rounded alone, to int8 and to
int4. Then, from all in float32, the step (of a group, to int8 or from there to int4) that saves the most bytes for what
it cost alone is tried, and the mix as a whole is measured. What exceeds the bound is taken back, and its group stays as
it was. It ends when no step is left; so what the mix says of itself was measured on it, not added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mythos_export.errors import MixError
from mythos_export.precision import PRECISIONS, Precision
from mythos_export.report import write_json, write_page
from mythos_export.verify.cases import given_ids
from mythos_model import Checkpoint, LoopedModel
from mythos_model.formats import PLAIN
from mythos_model.quantized import groups_of, rounded_module
from mythos_runtime.manifest import FORMATS, MIXED

PAGE = "mix"
LADDER = (PLAIN, *FORMATS)  # each step takes less than the one before
_DRAWN = (8, 64)  # rows and tokens of drawn ids
_ROWS = 256  # of a file, at most, evenly spread
_VALUES = 1 << 22  # logits that are compared at a time
_NOTHING = 1e-12  # nats: less is rounding of the measure itself


@dataclass(frozen=True)
class Alone:
    """A group, rounded alone: what it saves in bytes and costs in nats per token."""

    group: str
    format: str
    saves: int
    kl: float


@dataclass(frozen=True)
class Step:
    """A step that was tried: bytes of all weights and nats per token of the mix with it, and whether it was kept."""

    group: str
    format: str
    bytes: int
    kl: float
    kept: bool


@dataclass(frozen=True)
class Mix:
    """What was chosen, and how.

    Attributes:
        formats: by group; what is left out stays float32.
        kl: nats per token, measured on the mix.
        bytes, plain_bytes: of all weights, and in float32.
        data: what it was measured on, in words.
        tokens: how many.
    """

    formats: dict[str, str]
    max_kl: float
    kl: float
    bytes: int
    plain_bytes: int
    data: str
    tokens: int
    alone: tuple[Alone, ...]
    steps: tuple[Step, ...]

    def sentence(self) -> str:
        """For the end of an export."""
        return (
            f"{', '.join(f'{group} {form}' for group, form in self.formats.items())}; the rest float32: "
            f"{self.kl:.3g} nats per token from float32 (at most {self.max_kl:g}), on {self.data}; "
            f"{self.bytes} bytes of weights in place of {self.plain_bytes}"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_mix(
    checkpoint: Checkpoint,
    max_kl: float,
    cases: Path | None = None,
    progress: Callable[[float], None] = lambda part: None,
) -> Mix:
    """A format for each group of a checkpoint's matrices. The float32 model is in memory meanwhile.

    Args:
        max_kl: nats per token, at most.
        cases: safetensors with `input_ids` int64 [n, T] of which at most 256 rows are read.
        progress: told the part that is done.

    Raises:
        MixError: no group can be rounded within the bound.
        CasesError: the cases cannot be used.
        ModelError: a weight is too large for a rounded format.
    """
    if not (math.isfinite(max_kl) and max_kl >= 0):
        raise MixError(f"--max-kl should be a number of nats per token from 0 on, found {max_kl}")
    model = checkpoint.model(torch.float32)
    ids, data = _data(model, cases)
    trial = _Trial(model, ids)
    sizes = _Sizes(checkpoint)
    most = 2 * len(trial.groups) * len(FORMATS)
    done = 0

    def measured(group: str, form: str) -> float:
        nonlocal done
        trial.put(group, form)
        done += 1
        progress(min(done / most, 1.0))
        return trial.kl()

    alone: dict[tuple[str, str], Alone] = {}
    for group in trial.groups:
        for form in FORMATS:
            alone[group, form] = Alone(group, form, sizes.plain - sizes.of({group: form}), measured(group, form))
        trial.put(group, PLAIN)

    chosen = dict.fromkeys(trial.groups, PLAIN)
    ahead = {group: LADDER[1] for group in trial.groups}
    steps: list[Step] = []
    kl = 0.0
    while ahead:
        group = max(ahead, key=lambda each: _worth(alone, each, chosen[each], ahead[each]))
        form = ahead.pop(group)
        reached = measured(group, form)
        kept = reached <= max_kl
        mixed = {**chosen, group: form}
        steps.append(Step(group, form, sizes.of(mixed), reached, kept))
        if kept:
            chosen, kl = mixed, reached
            if form != LADDER[-1]:
                ahead[group] = LADDER[LADDER.index(form) + 1]
        else:
            trial.put(group, chosen[group])
    formats = {group: form for group, form in chosen.items() if form != PLAIN}
    if not formats:
        least = min(alone.values(), key=lambda each: each.kl)
        raise MixError(
            f"no group of matrices can be rounded within --max-kl {max_kl:g}: the least costs {least.group} as "
            f"{least.format}, {least.kl:.3g} nats per token; allow more, or use --precision fp32"
        )
    return Mix(
        formats, max_kl, kl, sizes.of(formats), sizes.plain, data, ids.numel(), tuple(alone.values()), tuple(steps)
    )


def divergence(checkpoint: Checkpoint, form: str, cases: Path | None = None) -> tuple[float, int]:
    """Nats per token of a checkpoint with every group in one format, and the bytes of its weights; as `choose_mix`."""
    model = checkpoint.model(torch.float32)
    trial = _Trial(model, _data(model, cases)[0])
    for group in trial.groups:
        trial.put(group, form)
    return trial.kl(), _Sizes(checkpoint).of(dict.fromkeys(trial.groups, form))


def _worth(alone: Mapping[tuple[str, str], Alone], group: str, now: str, then: str) -> tuple[float, int]:
    """Bytes that a step saves for the nats that it costs, as its group did alone; of equal ones the larger saving."""
    before = alone.get((group, now))
    saves = alone[group, then].saves - (0 if before is None else before.saves)
    costs = alone[group, then].kl - (0.0 if before is None else before.kl)
    return saves / max(costs, _NOTHING), saves


def _data(model: LoopedModel, cases: Path | None) -> tuple[Tensor, str]:
    """Ids int64 [n, T], and what they are."""
    spec = model.spec
    if cases is not None:
        rows = torch.from_numpy(given_ids(spec, cases))
        chosen = torch.linspace(0, len(rows) - 1, min(len(rows), _ROWS)).round().long()
        return rows[chosen], f"{len(chosen)} rows of {rows.shape[1]} ids of {cases.name}"
    count, tokens = _DRAWN[0], min(_DRAWN[1], spec.max_seq_len)
    drawn = torch.randint(0, spec.vocab_size, (count, tokens), generator=torch.Generator().manual_seed(0))
    return drawn, f"{count} rows of {tokens} drawn ids"


def write_mix(folder: Path, mix: Mix, source: str) -> None:
    """A page for people and the same as JSON, into the folder of reports."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{PAGE}.json", mix.to_json())
    write_page(
        folder / f"{PAGE}.html",
        f"{PAGE}.html.j2",
        mix=mix,
        source=source,
        chosen=[
            [group, mix.formats.get(group, "float32")] for group in dict.fromkeys(each.group for each in mix.alone)
        ],
        steps=[[s.group, s.format, s.bytes, f"{s.kl:.3g}", "yes" if s.kept else "no"] for s in mix.steps],
        alone=[[each.group, each.format, each.saves, f"{each.kl:.3g}"] for each in mix.alone],
    )


class _Trial:
    """A plain model some of whose groups have the values that rounded weights stand for."""

    def __init__(self, model: LoopedModel, ids: Tensor) -> None:
        self.model = model
        self.groups = groups_of(model, model.keeps)
        per_row = ids.shape[1] * model.spec.vocab_size
        self._parts: tuple[Tensor, ...] = ids.split(max(_VALUES // per_row, 1))
        self._plain: dict[str, Tensor] = {}
        self._true = [self._logits(part) for part in self._parts]

    def put(self, group: str, form: str) -> None:
        """Give a group the values of a format."""
        for name in self.groups[group]:
            module = self.model.get_submodule(name)
            own = dict(module.named_parameters(recurse=False))
            for parameter, tensor in own.items():
                tensor.data = self._plain.setdefault(f"{name}.{parameter}", tensor.data)
            if form != PLAIN:
                for parameter, values in rounded_module(module, form).plain().items():
                    own[parameter].data = values

    def kl(self) -> float:
        """Nats per token from the plain model."""
        total = 0.0
        for part, true in zip(self._parts, self._true, strict=True):
            p, q = (torch.log_softmax(each.double(), -1) for each in (true, self._logits(part)))
            total += float((p.exp() * (p - q)).sum())
        count = sum(part.numel() for part in self._parts)
        return max(total / count, 0.0)

    @torch.no_grad()
    def _logits(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(ids).logits
        return logits


class _Sizes:
    """Bytes of a checkpoint's weights, by the formats of its groups."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.plain = self.of({})

    def of(self, formats: Mapping[str, str]) -> int:
        rounded = {group: form for group, form in formats.items() if form != PLAIN}
        precision = Precision(MIXED, torch.float32, rounded) if rounded else PRECISIONS["fp32"]
        state = precision.structure(self._checkpoint).state_dict()
        return sum(tensor.numel() * tensor.element_size() for tensor in state.values())
