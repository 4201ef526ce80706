"""A model too large to be verified as a whole within the memory or the time there is.

Its reduced twin is verified in its place: the same weights, fewer of them (`mythos_model.checkpoint.reduced`), taken
through the same pipeline, and held to every case in every stage. Of the model itself are held to the eager model

    weights      every tensor of its graphs, bit by bit
    a few cases  short ones, by the CPU kernels, which read of the weights what they need
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mythos_export.progress import Progress
from mythos_export.verify.cases import Question
from mythos_export.verify.golden import Golden, judged
from mythos_export.verify.past import Past
from mythos_export.verify.results import Failure, StageResult
from mythos_export.verify.run import verify_bundle
from mythos_export.verify.stages import Stage
from mythos_export.verify.stages.onnxruntime import CpuKernels
from mythos_export.verify.stages.row_loops import RowLoops
from mythos_export.verify.stages.shards import ShardKernels
from mythos_export.verify.stages.stage import Constants
from mythos_export.verify.threads import few_threads
from mythos_export.verify.truth import Truth
from mythos_export.verify.weights import BIT_BY_BIT, Prints, compare_weights, prints
from mythos_export.weights_file import WeightsFile
from mythos_runtime.linked import LinkedTensor, Links, open_links
from mythos_runtime.manifest import Manifest

WHOLE = "whole model, "  # before the names of its stages
LINKED = "linked files"  # the user's own, among what holds weights
_WHOLE = 64 << 20  # bytes of a linked tensor that is looked at as a whole
_KINDS: tuple[type[Stage], ...] = (CpuKernels, RowLoops, ShardKernels)


def make_few(weights: WeightsFile, precision: str) -> Golden:
    """A few short cases: of experts and pages they read little."""
    with few_threads(weights.model):
        truth = Truth(weights.model)
        for question in _few(truth):
            truth.ask(question)
            weights.forget()
        return replace(judged(truth, precision), weights=prints(weights.model, weights.prints))


def _few(truth: Truth) -> Iterator[Question]:
    """Each after the one before was answered."""
    spec, rng = truth.model.spec, np.random.default_rng(0)

    def ids(count: int) -> np.ndarray:
        return rng.integers(0, spec.vocab_size, (1, count))

    loops, held = min(2, spec.trained_loops), min(2, max(spec.max_seq_len - 1, 1))
    past = Past.empty(spec, 1, held, loops)
    yield Question("a short prompt", past.inputs(ids(held), [held], loops, early_exit=False))
    outputs = truth.asked[-1].eager.outputs
    entries = {group.name: outputs[spec.ports.of("new", group.name).name] for group in spec.caches}
    past.append(outputs, [held])
    if spec.max_seq_len > held:
        yield Question("a token behind it", past.inputs(ids(1), [1], loops, early_exit=False))
    more = min(3, spec.trained_loops)
    yield Question("leaves by itself", Past.empty(spec, 1, 0, more).inputs(ids(1), [1], more))
    every = spec.trained_loops  # including those that the twin does not have; each reads another past
    varied = {group.name: _varied(entries[group.name], every) for group in spec.caches if group.per_loop}
    past = Past.made_up(spec, entries | varied, [min(held, spec.max_seq_len - 1)], held, every, rng)
    yield Question("every loop", past.inputs(ids(1), [1], every, early_exit=False))


def _varied(made: np.ndarray, depths: int) -> np.ndarray:
    """Entries of so many depths, [depths, ..., T, width], of those that few loops made: neighbours differ."""
    return np.stack([np.roll(made[depth % len(made)], depth // len(made), -2) for depth in range(depths)])


def verify_whole(
    folder: Path, manifest: Manifest, golden: Golden, progress: Progress
) -> tuple[tuple[StageResult, ...], tuple[str, ...]]:
    """The whole model's stages, of `make_few`'s cases, and what is wrong beyond them."""

    def said(step: str, part: float | None = None, /) -> None:
        progress(f"verify {WHOLE}{step}", part)

    said("weights")
    weights = _weights(folder, manifest, golden.weights)
    parity = verify_bundle(folder, manifest, said, golden=replace(golden, weights={}), kinds=_KINDS)
    others = (replace(stage, name=WHOLE + stage.name, failure=_renamed(stage.failure)) for stage in parity.stages)
    return (weights, *others), parity.problems


def _weights(folder: Path, manifest: Manifest, expected: Prints) -> StageResult:
    name, files = f"{WHOLE}weights", [f"{graph}.onnx" for graph in manifest.spec.graphs]
    files += [] if manifest.shards is None else manifest.shards.files()
    tensors: dict[str, Mapping[str, np.ndarray]] = {file: Constants(folder / file, {}) for file in files}
    if manifest.links is not None:  # every graph takes the same ones: they are looked at once
        tensors[LINKED] = _Linked(folder, manifest.links)
    held = _Held(tensors)
    problem, weighed = compare_weights(held, expected)
    failure = None if problem is None else Failure(name, BIT_BY_BIT, problem)
    return StageResult(name, "hashes of every tensor", ", ".join(tensors), (), None, failure, None, weighed)


def _renamed(failure: Failure | None) -> Failure | None:
    return None if failure is None else replace(failure, stage=WHOLE + failure.stage)


class _Linked(Mapping[str, np.ndarray]):
    """Weights that are in files outside of the bundle, each mapped when it is looked at, and large mixtures an expert
    at a time: so no more than that is in this process's memory."""

    def __init__(self, folder: Path, links: Links) -> None:
        self._folder, self._links = folder, links
        self._tensors = dict(each for item in links.tensors.items() for each in _pieces(*item))

    def __getitem__(self, name: str) -> np.ndarray:
        links = replace(self._links, tensors={name: self._tensors[name]})
        return open_links(self._folder, links)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _pieces(name: str, tensor: LinkedTensor) -> Iterator[tuple[str, LinkedTensor]]:
    """A tensor of several experts by them, named as those of shards are; any other as it is."""
    count, each = tensor.shape[0], len(tensor.stretches) // tensor.shape[0]
    parts = [tensor.stretches[at * each : (at + 1) * each] for at in range(count)]
    own = tensor.bytes // count
    apart = len(tensor.shape) == 3 and count > 1 and sum(map(len, parts)) == len(tensor.stretches)
    if tensor.bytes < _WHOLE or not apart or any(sum(each.bytes for each in part) != own for part in parts):
        yield name, tensor
        return
    for at, part in enumerate(parts):
        yield f"{name}[{at}:{at + 1}]", replace(tensor, shape=(1, *tensor.shape[1:]), stretches=part)


class _Held:
    """Files with their tensors, as a stage has them."""

    def __init__(self, files: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        self._files = files

    def weights(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        return self._files


def scope(fewer: Sequence[str], cases: int) -> str:
    """What was verified in the whole model's place, in a sentence."""
    return (
        f"That was a reduced twin on the same weights ({', '.join(fewer)}), as the model is too large for all of it; "
        f"of the model itself every weight and {cases} short cases were compared."
    )
