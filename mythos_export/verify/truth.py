"""The two eager models: float64, which is the truth, and the export's precision, whose error is the measure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mythos_export.capture import OUTPUT_NAMES
from mythos_export.verify.cases import Case, Question
from mythos_export.verify.trace import Answer, Recorder, Trace, to_numpy
from mythos_model import MythosModel


@dataclass(frozen=True)
class Asked:
    """A case, what eager PyTorch at the export's precision answers, and how far its routing logits are off.

    `routing_error` float32 [n, B, T] is the spread over the experts: a common shift changes no choice.
    """

    case: Case
    eager: Answer
    routing_error: np.ndarray


@dataclass
class Truth:
    """Puts questions to both models and keeps the answers.

    >>> truth = Truth(model)
    >>> golden_questions(model, truth.ask)
    >>> truth.asked[0].case.trace.h       # [n, B, T, D]
    """

    model: MythosModel
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exact = MythosModel.from_state(self.model.config, self.model.reference_state(), torch.float64)

    def ask(self, question: Question) -> dict[str, Tensor]:
        """Answer, keep, and return the outputs at the export's precision."""
        seen, shapes = Recorder(), self._shapes(question)
        outputs = dict(zip(OUTPUT_NAMES, self.model(**question.inputs, observe=seen), strict=True))
        case, true = self._exactly(question)
        error = np.zeros((min(len(seen.selection), len(true.selection)), *shapes["p"]), np.float32)
        for index, (found, expected) in enumerate(zip(seen.selection, true.selection, strict=False)):
            off = found.double() - expected
            error[index] = to_numpy(off.amax(-1) - off.amin(-1))
        answer = Answer({name: to_numpy(value) for name, value in outputs.items()}, seen.trace(shapes))
        self.asked.append(Asked(case, answer, error))
        return outputs

    def case(self, question: Question) -> Case:
        """The question with the float64 model's answer; it is not kept."""
        return self._exactly(question)[0]

    def _exactly(self, question: Question) -> tuple[Case, Recorder]:
        true = Recorder()
        exact = dict(zip(OUTPUT_NAMES, self.exact(**_wide(question.inputs), observe=true), strict=True))
        trace = true.trace(self._shapes(question))
        return _case(question, exact, true, trace, self.model.config.n_experts_per_tok), true

    def cumulative(self, question: Question) -> Tensor:
        """[n, B, T]: summed halting probabilities of the float64 model after every iteration."""
        sums: list[Tensor] = []
        self.exact(**_wide(question.inputs), observe=lambda carry, details: sums.append(carry.cumulative))
        return torch.stack(sums)

    def spectral_radius(self) -> float:
        """Of the injection, in the dtype that the loop computes it in: the largest factor on the state."""
        return float(self.model.recurrent.injection.decay(torch.float32).max())

    def _shapes(self, question: Question) -> dict[str, tuple[int, ...]]:
        config, (B, T) = self.model.config, question.inputs["input_ids"].shape
        flat = dict.fromkeys(("p", "cumulative", "depth", "halted"), (B, T))
        wide = dict.fromkeys(("h", "out"), (B, T, config.dim))
        routed = dict.fromkeys(("experts", "weights"), (B, T, config.n_experts_per_tok))
        return {"entries": (B, T, config.cache_dim), **flat, **wide, **routed}


def _wide(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if name in ("past_layers", "past_loop") else value for name, value in inputs.items()}


def _case(question: Question, outputs: dict[str, Tensor], seen: Recorder, trace: Trace, chosen: int) -> Case:
    shape = tuple(question.inputs["input_ids"].shape)
    routing = np.full((len(seen.steps), *shape), np.inf, np.float32)
    halting = np.full((len(seen.steps), *shape), np.inf, np.float32)
    threshold, halted = question.inputs["halt_threshold"], question.inputs["positions"] < 0
    for index, (step, selection) in enumerate(zip(seen.steps, seen.selection, strict=True)):
        ranked = selection.sort(-1, descending=True).values
        if ranked.shape[-1] > chosen:
            routing[index] = to_numpy(ranked[..., chosen - 1] - ranked[..., chosen])
        distance = (step["cumulative"] - threshold.double()).abs()
        halting[index] = to_numpy(torch.where(halted, torch.inf, distance))
        halted = step["halted"]
    return Case(
        question.name,
        {name: to_numpy(value) for name, value in question.inputs.items()},
        {name: _narrow(to_numpy(value)) for name, value in outputs.items()},
        Trace(**{name: _narrow(array) for name, array in trace.arrays.items()}),
        routing,
        halting,
    )


def _narrow(array: np.ndarray) -> np.ndarray:
    """Float64 as float32: its rounding is far below every tolerance, and halves what is stored."""
    if array.dtype == np.float64:
        return array.astype(np.float32)
    return array.astype(np.int32) if array.dtype == np.int64 and array.ndim else array
