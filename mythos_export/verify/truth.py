"""The two eager models: float64, which is the truth, and the export's precision, whose error is the measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mythos_export.verify.cases import Case, Question
from mythos_export.verify.trace import Answer, Trace, decisions, names, stacked, to_numpy, to_torch
from mythos_model.exact import with_plain_activations
from mythos_model.looped import LoopedModel
from mythos_model.taps import Recorded, disturbing, recording

Run = tuple[Mapping[str, Tensor], Recorded]  # outputs by port, and what the loop showed

EXECUTIONS = 3  # of eager, for every case


@dataclass(frozen=True)
class Asked:
    """A case, what eager PyTorch at the export's precision answers, and how far off that is in what decides.

    `errors` are float32 [n, B, T] by decision: of a choice the spread over its scores' errors, since a common shift
    changes no choice; of halting the error of the tensor that is held to the threshold.
    """

    case: Case
    eager: Answer
    errors: Mapping[str, np.ndarray]


@dataclass
class Truth:
    """Puts questions to both models and keeps the answers.

    >>> truth = Truth(model)
    >>> golden_questions(truth, cuts())
    >>> truth.asked[0].case.trace["h"]       # [n, B, T, D]
    """

    model: LoopedModel
    asked: list[Asked] = field(default_factory=list)
    measured: list[Asked] = field(default_factory=list)
    """Executions that are no answers to a case: they tell how far off eager may be, no more."""
    choices: dict[str, int] = field(default_factory=dict)
    """Of how many each choice of the trace is made."""
    apart: list[Asked] = field(default_factory=list)
    """Where activations or cache lines are rounded, the same questions to the float64 model that rounds none: how far
    rounding moves what there is to see. Two that round alike, in float32 and float64, part as soon as one value is near
    the middle of two integers, and are then about as far from each other as from this one."""

    def __post_init__(self) -> None:
        self.exact = self.model.exact()
        rounds = self.model.rounds_activations or self.model.rounded_parts
        self.unmoved = with_plain_activations(self.model.exact()).with_int8_cache(False) if rounds else None
        self.model = self.model.unrounded()

    def ask(self, question: Question) -> Mapping[str, np.ndarray]:
        """Answer, keep, and return the outputs at the export's precision. Eager is executed EXECUTIONS times, all but
        the first as `measure` does: how far off a single one is, where states nearly cancel, is chance."""
        true = _run(self.exact, question)
        case = self._case(question, *true)
        asked = self._compared(case, _run(self.model, question), true)
        self.measured += [self._disturbed(question, seed, case, true) for seed in range(EXECUTIONS - 1)]
        if self.unmoved is not None:
            self.apart.append(self._compared(case, _run(self.unmoved, question), true))
            logits = self.model.spec.ports.of("logits").name
            plain = {logits: _narrow(np.asarray(self.apart[-1].eager.outputs[logits]))}
            asked = replace(asked, case=replace(case, unrounded=plain))
        self.asked.append(asked)
        return asked.eager.outputs

    def measure(self, question: Question, seed: int) -> None:
        """Answer a question that is no case, with eager rounding by chance (`taps.disturbing`): only how far off such
        an execution is is of interest."""
        true = _run(self.exact, question)
        self.measured.append(self._disturbed(question, seed, self._case(question, *true), true))

    def _disturbed(self, question: Question, seed: int, case: Case, true: Run) -> Asked:
        with disturbing(seed):
            run = _run(self.model, question)
        return self._compared(case, run, true)

    def _compared(self, case: Case, run: Run, truth: Run) -> Asked:
        """What eager at the export's precision answered, beside the truth, of which the case is made."""
        (outputs, seen), (_, true) = run, truth
        errors = {}
        for tensor in decisions(self.model.spec):
            if tensor.kind == "choice":
                self.choices |= {tensor.name: scores[0].shape[-1]} if (scores := true.scores.get(tensor.name)) else {}
                pairs = _pairs(seen.scores, true.scores, tensor.name)
                errors[tensor.name] = _stack([(off := f.double() - e).amax(-1) - off.amin(-1) for f, e in pairs])
            else:
                pairs = _pairs(seen.values, true.values, tensor.of or "")
                errors[tensor.name] = _stack([(f.double() - e).abs() for f, e in pairs])
        return Asked(case, Answer(_arrays(outputs), stacked(self._steps(seen))), errors)

    def outputs(self, question: Question) -> Mapping[str, np.ndarray]:
        """Those of eager at the export's precision; nothing is kept."""
        return _arrays(self.model.run(_tensors(self.model, question)))

    def watch(self, inputs: Mapping[str, np.ndarray]) -> Trace:
        """What eager at the export's precision computes in the loop; nothing is kept."""
        return stacked(self._steps(_run(self.model, Question("", dict(inputs)))[1]))

    def case(self, question: Question) -> Case:
        """The question with the float64 model's answer; it is not kept."""
        return self._case(question, *_run(self.exact, question))

    def _case(self, question: Question, outputs: Mapping[str, Tensor], seen: Recorded) -> Case:
        spec = self.model.spec
        steps = {name: [_narrow(array) for array in each] for name, each in self._steps(seen).items()}
        return Case(
            spec,
            question.name,
            question.inputs,
            {name: _narrow(array) for name, array in _arrays(outputs).items()},
            stacked(steps),
            {tensor.name: _stack(seen.margins.get(tensor.name, [])) for tensor in decisions(spec)},
        )

    def _steps(self, seen: Recorded) -> dict[str, list[np.ndarray]]:
        return {name: [to_numpy(value) for value in seen.values.get(name, [])] for name in names(self.model.spec)}


def _run(model: LoopedModel, question: Question) -> Run:
    with recording() as seen:
        return model.run(_tensors(model, question)), seen


def _tensors(model: LoopedModel, question: Question) -> dict[str, Tensor]:
    """The inputs; a past in the model's own dtype."""
    past = {port.name for port in model.spec.ports.inputs if port.role == "past"}
    tensors = {name: to_torch(array) for name, array in question.inputs.items()}
    return {name: tensor.to(model.dtype) if name in past else tensor for name, tensor in tensors.items()}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}


def _pairs(
    found: Mapping[str, list[Tensor]], expected: Mapping[str, list[Tensor]], name: str
) -> list[tuple[Tensor, Tensor]]:
    """Of the iterations that both ran."""
    return list(zip(found.get(name, []), expected.get(name, []), strict=False))


def _stack(steps: Sequence[Tensor]) -> np.ndarray:
    """[n, B, T] as float32; of a loop that never ran, [0, 1, 1]."""
    return to_numpy(torch.stack(list(steps)).float()) if steps else np.zeros((0, 1, 1), np.float32)


def _narrow(array: np.ndarray) -> np.ndarray:
    """Float64 as float32: its rounding is far below every tolerance, and halves what is stored."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int32) if array.dtype == np.int64 and array.ndim else array
