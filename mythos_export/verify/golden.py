"""The golden cases of a bundle: made once from the eager models, stored in `golden.safetensors`, checked anywhere.

Tensors `{case}.in.{port}`, `{case}.out.{port}`, `{case}.inside.{tensor}` and `{case}.margin.{routing|halting}`; the
metadata entry `golden` is JSON: names, tolerances, what eager at the export's precision erred, the spectral radius of
the injection, and a greedy continuation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from mythos_export.capture import INPUT_NAMES
from mythos_export.verify.cases import Case, Question, given_questions, golden_questions, random_questions
from mythos_export.verify.compare import compare, possible_ties
from mythos_export.verify.generation import TOKENS, Call, Text, true_text
from mythos_export.verify.results import CaseResult
from mythos_export.verify.tolerances import Tolerances, measure
from mythos_export.verify.trace import TENSORS, Trace, to_numpy
from mythos_export.verify.truth import Asked, Truth
from mythos_model import MythosModel
from mythos_runtime.config import RuntimeConfig
from mythos_runtime.errors import BundleError

GOLDEN = "golden.safetensors"
EAGER = "eager"


@dataclass(frozen=True)
class Golden:
    """Cases with their true answers, and everything that is needed to judge others by them.

    Attributes:
        precision: fp32, fp16, bf16, int8 or int4.
        prelude: the number of prelude layers.
        cases: questions and the float64 model's answers.
        tolerances: measured on eager at the export's precision.
        eager: how that did, case by case.
        spectral_radius: of the injection.
        text: a prompt and its greedy continuation; None for models with too short a context.
    """

    precision: str
    prelude: int
    cases: tuple[Case, ...]
    tolerances: Tolerances
    eager: tuple[CaseResult, ...]
    spectral_radius: float
    text: Text | None

    def joined(self, other: Golden) -> Golden:
        """Both sets of cases, judged by the larger tolerance of the two."""
        return replace(
            self,
            cases=self.cases + other.cases,
            tolerances=self.tolerances.merged(other.tolerances),
            eager=self.eager + other.eager,
        )


def make_golden(model: MythosModel, precision: str, config: RuntimeConfig, given: Path | None = None) -> Golden:
    """Answer the fixed questions, and those of a file, with the eager models.

    Raises:
        CasesError: the given inputs cannot be used.
    """
    truth = Truth(model)
    golden_questions(model, truth.ask)
    for question in given_questions(model, given) if given is not None else ():
        truth.ask(question)
    prompt = truth.asked[-1 if given is not None else 1].case.inputs["input_ids"][0].tolist()
    room = model.config.max_seq_len - TOKENS
    golden = _judged(truth, precision, model)
    if room <= 0:
        return golden
    ties: list[bool] = []
    text = true_text(_exact(truth, golden.tolerances, ties), prompt[:room], config)
    return replace(golden, text=replace(text, ties=tuple(ties)))


def make_random(model: MythosModel, precision: str, count: int, seed: int) -> Golden:
    """The same for `count` drawn questions."""
    truth = Truth(model)
    for question in random_questions(model, count, seed, truth.cumulative):
        truth.ask(question)
    return _judged(truth, precision, model)


def _judged(truth: Truth, precision: str, model: MythosModel) -> Golden:
    prelude = model.config.prelude_layers
    measured = [compare(asked.case, asked.eager, None, prelude) for asked in truth.asked]
    tolerances = measure(truth.asked, measured, precision)
    cases = tuple(asked.case for asked in truth.asked)
    eager = tuple(_eager_result(asked, tolerances, prelude) for asked in truth.asked)
    return Golden(precision, prelude, cases, tolerances, eager, truth.spectral_radius(), None)


def _eager_result(asked: Asked, tolerances: Tolerances, prelude: int) -> CaseResult:
    comparison = compare(asked.case, asked.eager, tolerances, prelude)
    return CaseResult.of(EAGER, comparison, asked.eager.outputs, tolerances)


def _exact(truth: Truth, tolerances: Tolerances, ties: list[bool]) -> Call:
    """Runs the float64 model, and adds to `ties` whether a decision of the call is near a tie."""

    def call(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        tensors = {name: torch.from_numpy(np.array(inputs[name], dtype=_plain(inputs[name]))) for name in INPUT_NAMES}
        case = truth.case(Question("text", tensors))
        ties.append(any(possible_ties(case, tolerances)))
        return case.outputs

    return call


def _plain(array: np.ndarray) -> np.dtype:
    """Torch reads no ml_dtypes; the float64 model takes caches of any width."""
    return np.dtype(np.float32) if array.dtype.name == "bfloat16" else array.dtype


def save_golden(golden: Golden, path: Path) -> None:
    """Write everything into one safetensors file."""
    arrays: dict[str, np.ndarray] = {}
    for index, case in enumerate(golden.cases):
        for part, named in _parts(case):
            arrays |= {f"{index}.{part}.{name}": array for name, array in named.items()}
    about = {
        "precision": golden.precision,
        "prelude": golden.prelude,
        "cases": [case.name for case in golden.cases],
        "tolerances": golden.tolerances.to_json(),
        "eager": [result.to_json() for result in golden.eager],
        "spectral_radius": golden.spectral_radius,
        "text": golden.text and asdict(golden.text),
    }
    save_file({name: _to_torch(array) for name, array in arrays.items()}, path, {"golden": json.dumps(about)})


def load_golden(path: Path) -> Golden:
    """What `save_golden` wrote.

    Raises:
        BundleError: the file is not there or not such a file.
    """
    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["golden"])
        arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        cases = tuple(_case(name, index, arrays) for index, name in enumerate(about["cases"]))
        text = about["text"]
        return Golden(
            about["precision"],
            about["prelude"],
            cases,
            Tolerances.from_json(about["precision"], about["tolerances"]),
            tuple(CaseResult.from_json(result) for result in about["eager"]),
            about["spectral_radius"],
            text and Text(**{name: tuple(values) for name, values in text.items()}),
        )
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{path} holds no golden cases ({error!r}); export the model again") from error


def _parts(case: Case) -> Iterable[tuple[str, Mapping[str, np.ndarray]]]:
    yield "in", case.inputs
    yield "out", case.outputs
    yield "inside", case.trace.arrays
    yield "margin", {"routing": case.routing_margin, "halting": case.halting_margin}


def _case(name: str, index: int, arrays: Mapping[str, np.ndarray]) -> Case:
    def part(which: str) -> dict[str, np.ndarray]:
        prefix = f"{index}.{which}."
        return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}

    inside, margin = part("inside"), part("margin")
    trace = Trace(**{tensor: inside[tensor] for tensor in TENSORS})
    return Case(name, part("in"), part("out"), trace, margin["routing"], margin["halting"])


def _to_torch(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape).clone()
