"""The inputs that an export is held to: fixed ones (`covering.py`), given ones, and random ones.

A question is what a stage is given. Its answer by the float64 model (`truth.py`) makes it a case.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file

from mythos_export.errors import CasesError
from mythos_export.verify.past import Past
from mythos_export.verify.trace import Trace, halting
from mythos_runtime.spec import LoopSpec

# Of an input file: every stage runs its rows, and the answers travel in the bundle, the loop from inside too.
GIVEN_ROWS = 12
GIVEN_VALUES = 1 << 25
# Of a drawn question, the most tokens and the longest past: most are small, some pass two blocks of keys.
SHORT, LONG = (12, 16), (40, 80)


@dataclass(frozen=True)
class Question:
    """One call of the graph: a name for people, and the inputs by port."""

    name: str
    inputs: dict[str, np.ndarray]


Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A question and its true answer, that of the float64 model with the export's weights.

    Attributes:
        spec: of the model that was asked.
        name: for people.
        inputs: by port name.
        outputs: of the float64 model by port name; floats are kept as float32.
        trace: the same, inside the loop.
        margins: by decision of the trace, float32 [n, B, T], how far it is from falling otherwise. Of a choice: how
            much the last chosen one's score is above the first unchosen one's (inf where all are chosen). Of halting:
            the distance of what decides from the threshold; inf once halted.
        unrounded: where activations or cache lines are rounded, the logits of the model that rounds none, by port name;
            else nothing.
    """

    spec: LoopSpec
    name: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    trace: Trace
    margins: Mapping[str, np.ndarray]
    unrounded: Mapping[str, np.ndarray] = field(default_factory=dict)

    def input(self, role: str) -> np.ndarray:
        return self.inputs[self.spec.ports.of(role).name]

    def output(self, role: str) -> np.ndarray:
        return self.outputs[self.spec.ports.of(role).name]

    @property
    def real(self) -> np.ndarray:
        """bool [B, T]: positions that are not padding."""
        return self.input("positions") >= 0


def given_ids(spec: LoopSpec, path: Path) -> np.ndarray:
    """A file's `input_ids`, int64 [n, T].

    Raises:
        CasesError: the file cannot be read or its ids do not fit the model.
    """
    try:
        ids = load_file(path)["input_ids"].long().numpy()
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise CasesError(f"{path} gives no cases ({error}); it should be a safetensors file with input_ids") from error
    if ids.ndim != 2 or not ids.size or ids.shape[1] > spec.max_seq_len:
        raise CasesError(
            f"{path}: input_ids has shape {list(ids.shape)}, expected [n, T] with T from 1 to {spec.max_seq_len}"
        )
    if ids.min() < 0 or ids.max() >= spec.vocab_size:
        raise CasesError(f"{path}: ids are {ids.min()} to {ids.max()}, the model knows 0 to {spec.vocab_size - 1}")
    return ids


def given_questions(spec: LoopSpec, path: Path) -> Iterator[Question]:
    """Questions from a file's `input_ids` int64 [n, T]: at most GIVEN_ROWS rows, evenly spread, with loops to spare.

    Raises:
        CasesError: as `given_ids`, or the rows are too long.
    """
    ids = given_ids(spec, path)
    loops = 2 * spec.trained_loops
    kept = sum(math.prod(dim for dim in tensor.dims if isinstance(dim, int)) for tensor in spec.trace)
    fit = GIVEN_VALUES // (loops * kept)
    if ids.shape[1] > fit:
        raise CasesError(f"{path}: rows of {ids.shape[1]} tokens are too long to keep their answers; cut them to {fit}")
    count = min(len(ids), GIVEN_ROWS, fit // ids.shape[1])
    rows = np.linspace(0, len(ids) - 1, count).round().astype(int)
    yield Question(f"given inputs, {count} rows", without_cache(spec, ids[rows], loops))


def random_questions(
    spec: LoopSpec, count: int, seed: int, outputs: Callable[[Question], Outputs], true: Callable[[Question], Case]
) -> Iterator[Question]:
    """`count` drawn questions: batch, tokens, past, padding, threshold, loops and policy; every sixth is a near tie.

    `outputs` are eager's at the export's precision, to fill a past with. A near tie's threshold is a value that decides
    over halting in the `true` answer, so that the position halts by less than the precision can tell.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    rule = spec.exit.knob("halt_threshold")
    usual = rule.default if rule is not None else 0.0
    for index in range(count):
        most_tokens, most_held = LONG if rng.random() < 0.25 else SHORT
        batch, tokens = int(rng.integers(1, 7)), int(rng.integers(1, min(most_tokens, spec.max_seq_len) + 1))
        held = int(rng.integers(0, min(most_held, spec.max_seq_len - tokens) + 1)) if rng.random() < 0.5 else 0
        loops = int(rng.integers(0, spec.trained_loops + 5))
        threshold = float(rng.choice([usual, usual, -1.0, 0.0, 0.05, 0.3, 0.6, 0.9999, 1.5, 1e9]))
        early_exit = bool(rng.random() < 0.6)
        counts = [int(rng.integers(1, tokens + 1)) for _ in range(batch)]
        counts[int(rng.integers(batch))] = tokens  # no column of padding only
        real = np.arange(tokens) < np.array(counts)[:, None]
        if rng.random() < 0.4:  # padding anywhere
            real = rng.permuted(real, axis=1)
        past = Past.empty(spec, batch, held, loops + int(rng.choice([0, 0, 2])))
        if held:
            lengths = [int(rng.integers(0, held + 1)) for _ in range(batch)]
            ids = _drawn(spec, (batch, held), generator)
            before = past.inputs(ids, lengths, max(loops, 1), early_exit=False)
            past.append(outputs(Question("past", before)), lengths)
        ids = _drawn(spec, (batch, tokens), generator)
        name = f"random {index + 1}: batch {batch}, {tokens} tokens, past {held}, {loops} loops"
        if rule is not None:
            name += f", threshold {threshold:g}"
        question = Question(name, past.inputs(ids, real, loops, threshold, early_exit))
        who = halting(spec)
        if index % 6 == 5 and loops and rule is not None and who is not None and who.of is not None:
            case = true(question)
            reached = case.trace[who.of]
            reached = reached[int(rng.integers(len(reached)))][case.real]
            tie = np.float32(reached[int(rng.integers(len(reached)))])
            port = spec.ports.of("halt_threshold").name
            question = Question(
                f"random {index + 1}: near tie, {loops} loops", {**question.inputs, port: np.array(tie)}
            )
        yield question


def without_cache(spec: LoopSpec, ids: np.ndarray, loops: int, threshold: float | None = None) -> dict[str, np.ndarray]:
    """Inputs of one call on `ids` [B, T] that leaves the loop by itself and has no past."""
    return Past.empty(spec, len(ids), 0, loops).inputs(ids, [ids.shape[1]] * len(ids), loops, threshold)


def _drawn(spec: LoopSpec, shape: Sequence[int], generator: torch.Generator) -> np.ndarray:
    return torch.randint(0, spec.vocab_size, tuple(shape), generator=generator).numpy()
