"""The golden cases of a bundle: made once from the eager models, stored in `golden.safetensors`, checked anywhere.

Tensors `{case}.in.{port}`, `{case}.out.{port}`, `{case}.inside.{tensor}` and `{case}.margin.{decision}`; the metadata
entry `golden` is JSON: format, names, tolerances, what eager at the export's precision erred, the model's own checks,
a greedy continuation, the boundaries that the cases have to hit, and hashes of the weights. What the tensors mean says
the manifest's spec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors
from safetensors.torch import load_file

from mythos_export.kernels.library import Cuts, cuts
from mythos_export.tensor_file import write_tensors
from mythos_export.verify.cases import Case, Question, given_questions, random_questions
from mythos_export.verify.compare import compare, possible_ties
from mythos_export.verify.coverage import DEEP, Boundaries, Covered, Profiles, boundaries_of, coverage
from mythos_export.verify.covering import golden_questions
from mythos_export.verify.generation import TOKENS, Call, Text, true_text
from mythos_export.verify.measure import measure
from mythos_export.verify.results import EAGER, CaseResult
from mythos_export.verify.threads import few_threads
from mythos_export.verify.ties import Tie, make_tie
from mythos_export.verify.tolerances import FACTOR, MOVED, MOVED_LINES, Tolerances
from mythos_export.verify.trace import Trace, decisions, names, to_numpy, to_torch
from mythos_export.verify.truth import Asked, Truth
from mythos_export.verify.weights import Print, Prints, prints
from mythos_model.looped import LoopedModel
from mythos_model.state import Check
from mythos_runtime.errors import BundleError
from mythos_runtime.spec import LoopSpec

GOLDEN = "golden.safetensors"
FORMAT = 3


@dataclass(frozen=True)
class Golden:
    """Cases with their true answers, and everything that is needed to judge others by them.

    Attributes:
        spec: of the model.
        precision: fp32, fp16, bf16, int8 or int4.
        cases: questions and the float64 model's answers.
        tolerances: measured on eager at the export's precision.
        eager: how that did, case by case.
        checks: what the model itself says must hold of its weights.
        text: a prompt and its greedy continuation; None for models with too short a context.
        boundaries: what the cases have to hit; nothing where they are only some.
        apart: by case, its own tolerances where it has some: far beyond the trained depth,
            rounding is larger, and must not loosen what the others are held to.
        weights: hashes of the model's tensors; nothing where they are not to be compared.
        tie: where stages are made to decide at an exact tie; None where the exit rule decides nothing.
    """

    spec: LoopSpec
    precision: str
    cases: tuple[Case, ...]
    tolerances: Tolerances
    eager: tuple[CaseResult, ...]
    checks: tuple[Check, ...]
    text: Text | None
    boundaries: Boundaries = field(default_factory=dict)
    apart: Mapping[str, Tolerances] = field(default_factory=dict)
    tie: Tie | None = None
    weights: Prints = field(default_factory=dict)

    def of(self, case: Case) -> Tolerances:
        """What a case is judged by."""
        return self.apart.get(case.name, self.tolerances)

    @property
    def coverage(self) -> tuple[Covered, ...]:
        """Of all cases."""
        return coverage(self.cases, self.boundaries)

    def joined(self, other: Golden) -> Golden:
        """Both sets of cases, judged by the larger tolerance of the two."""
        return replace(
            self,
            cases=self.cases + other.cases,
            tolerances=self.tolerances.merged(other.tolerances),
            eager=self.eager + other.eager,
            apart={**self.apart, **other.apart},
        )


def make_golden(
    model: LoopedModel,
    precision: str,
    given: Path | None = None,
    progress: Callable[[float], None] = lambda part: None,
    weights: Prints | None = None,
    profiles: Profiles | None = None,
) -> Golden:
    """Answer the fixed questions, and those of a file, with the eager models; `progress` is told the part that is done.
    `weights` are the prints of the model's tensors where they were made already; `profiles` are those of an engine in
    the bundle.

    Raises:
        CasesError: the given inputs cannot be used.
    """
    spec = model.spec
    own = list(given_questions(spec, given)) if given is not None else []
    with few_threads(model):
        truth, sizes = Truth(model), cuts()
        golden_questions(truth, sizes, lambda asked, of: progress(asked / (of + len(own))), profiles=profiles)
        fixed = len(truth.asked)
        for number, question in enumerate(own):
            progress((fixed + number) / (fixed + len(own)))
            truth.ask(question)
        golden = judged(truth, precision)
        golden = replace(
            golden,
            boundaries=_boundaries(truth, sizes, profiles),
            tie=make_tie(truth),
            weights=prints(model, weights),
        )
        return replace(golden, text=_text(truth, golden, sizes, given is not None))


def _boundaries(truth: Truth, sizes: Cuts, profiles: Profiles | None) -> Boundaries:
    return boundaries_of(truth.model.spec, sizes, truth.choices, profiles)


def _text(truth: Truth, golden: Golden, sizes: Cuts, given: bool) -> Text | None:
    """A continuation that passes the end of a block of keys, where the model's context has room for one."""
    room = truth.model.spec.max_seq_len - TOKENS
    if room <= 0:
        return None
    prompt = truth.asked[-1 if given else 0].case.input("ids")[0].tolist()
    ties: list[bool] = []
    text = true_text(
        _exact(truth, golden.tolerances, ties), prompt[: min(room, sizes.keys - TOKENS // 2)], truth.model.spec
    )
    return replace(text, ties=tuple(ties))


def make_random(model: LoopedModel, precision: str, count: int, seed: int) -> Golden:
    """The same for `count` drawn questions."""
    with few_threads(model):
        truth = Truth(model)
        for question in random_questions(model.spec, count, seed, truth.outputs, truth.case):
            truth.ask(question)
        return judged(truth, precision)


def judged(truth: Truth, precision: str) -> Golden:
    """What was asked, with the tolerances measured on it; those far beyond the trained depth on that case alone."""
    executions = [*truth.asked, *truth.measured]
    deep = [each for each in executions if each.case.name == DEEP]
    tolerances = _measured(truth, [each for each in executions if each.case.name != DEEP], precision)
    apart = {DEEP: tolerances.merged(_measured(truth, deep, precision))} if deep else {}
    cases = tuple(asked.case for asked in truth.asked)
    eager = tuple(_eager_result(asked, apart.get(asked.case.name, tolerances)) for asked in truth.asked)
    return Golden(truth.model.spec, precision, cases, tolerances, eager, truth.model.checks(), None, apart=apart)


def _measured(truth: Truth, asked: Sequence[Asked], precision: str) -> Tolerances:
    """By what eager errs on these cases and, where activations or cache lines are rounded, by what rounding moves.

    Of the lines themselves by the latter alone: where eager rounded a value the other way it is a whole step off, and
    FACTOR such steps would hide what does not round at all.
    """

    def of(each: Sequence[Asked], factor: float) -> Tolerances:
        return measure(each, [compare(one.case, one.eager, None) for one in each], precision, factor)

    names = {each.case.name for each in asked}
    apart = [each for each in truth.apart if each.case.name in names]
    found = of(asked, FACTOR).merged(of(apart, MOVED))
    spec = truth.model.spec
    if not spec.int8_cache:
        return found
    lines = {port.name for port in spec.ports.outputs if port.role == "new"} | set(truth.model.entry_names())
    seen = {name: series for name, series in of(apart, MOVED_LINES).tensors.items() if name in lines}
    return Tolerances(precision, {**found.tensors, **seen}, found.bands)


def _eager_result(asked: Asked, tolerances: Tolerances) -> CaseResult:
    return CaseResult.of(EAGER, compare(asked.case, asked.eager, tolerances), tolerances)


def _exact(truth: Truth, tolerances: Tolerances, ties: list[bool]) -> Call:
    """Runs the float64 model, and adds to `ties` whether a decision of the call is near a tie."""

    def call(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        case = truth.case(Question("text", dict(inputs)))
        ties.append(any(possible_ties(case, tolerances)))
        return case.outputs

    return call


def save_golden(golden: Golden, path: Path) -> None:
    """Write everything into one safetensors file."""
    arrays: dict[str, np.ndarray] = {}
    for index, case in enumerate(golden.cases):
        for part, named in _parts(case):
            arrays |= {f"{index}.{part}.{name}": array for name, array in named.items()}
    about = {
        "format": FORMAT,
        "precision": golden.precision,
        "cases": [case.name for case in golden.cases],
        "tolerances": golden.tolerances.to_json(),
        "eager": [result.to_json() for result in golden.eager],
        "checks": [check._asdict() for check in golden.checks],
        "text": golden.text and asdict(golden.text),
        "boundaries": golden.boundaries,
        "apart": {name: tolerances.to_json() for name, tolerances in golden.apart.items()},
        "tie": golden.tie and asdict(golden.tie),
        "weights": {name: each.to_json() for name, each in golden.weights.items()},
    }
    write_tensors(path, {name: to_torch(array) for name, array in arrays.items()}, {"golden": json.dumps(about)})


def load_golden(path: Path, spec: LoopSpec) -> Golden:
    """What `save_golden` wrote, of a model with this spec.

    Raises:
        BundleError: the file is not there, not such a file, or of a model with another spec.
    """
    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["golden"])
        if about.get("format") != FORMAT:
            raise ValueError(f"it is of format {about.get('format', 1)}, this version reads {FORMAT}")
        arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        cases = tuple(_case(spec, name, index, arrays) for index, name in enumerate(about["cases"]))
        text = about["text"]
        return Golden(
            spec,
            about["precision"],
            cases,
            Tolerances.from_json(about["precision"], about["tolerances"]),
            tuple(CaseResult.from_json(result) for result in about["eager"]),
            tuple(Check(**check) for check in about["checks"]),
            text and Text(**{name: tuple(values) for name, values in text.items()}),
            dict(about["boundaries"]),
            {name: Tolerances.from_json(about["precision"], each) for name, each in about["apart"].items()},
            about["tie"] and Tie(**about["tie"]),
            {name: Print.from_json(each) for name, each in about["weights"].items()},
        )
    except (OSError, AttributeError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{path} holds no golden cases ({error!r}); export the model again") from error


def _parts(case: Case) -> Iterable[tuple[str, Mapping[str, np.ndarray]]]:
    yield "in", case.inputs
    yield "out", case.outputs
    yield "inside", case.trace.arrays
    yield "margin", case.margins
    yield "unrounded", case.unrounded


def _case(spec: LoopSpec, name: str, index: int, arrays: Mapping[str, np.ndarray]) -> Case:
    def part(which: str, expected: Iterable[str]) -> dict[str, np.ndarray]:
        return {each: arrays[f"{index}.{which}.{each}"] for each in expected}

    logits = spec.ports.of("logits").name
    return Case(
        spec,
        name,
        part("in", (port.name for port in spec.ports.inputs)),
        part("out", (port.name for port in spec.ports.outputs)),
        Trace(part("inside", names(spec))),
        part("margin", (tensor.name for tensor in decisions(spec))),
        part("unrounded", [logits] if f"{index}.unrounded.{logits}" in arrays else []),
    )
