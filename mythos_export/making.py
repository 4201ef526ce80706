"""From a checkpoint to a bundle that nothing of has been executed yet: the pipeline up to verification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mythos_export.capture import capture, capture_rows
from mythos_export.linked import find_links, map_links
from mythos_export.lower import lower, lower_rows
from mythos_export.package import Bundle, package
from mythos_export.precision import precision_of
from mythos_export.program_file import write_program
from mythos_export.progress import Progress, silent
from mythos_export.shards.files import shard
from mythos_export.targets.target import Target, TargetOptions, build
from mythos_export.verify.cases import given_questions
from mythos_export.verify.weights import Weighing
from mythos_export.weights_file import WeightsFile, write_weights
from mythos_model import Checkpoint, LoopedModel, load_checkpoint
from mythos_runtime.program import WEIGHTS
from mythos_runtime.tokenizer_entry import TokenizerEntry


@dataclass(frozen=True)
class Loaded:
    """The model at the export's precision, without weights, and the checkpoint that has them; where the precision is
    mixed, the formats by group."""

    model: LoopedModel
    checkpoint: Checkpoint
    formats: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Checkpoint, precision: str, formats: Mapping[str, str], int8_cache: bool = False) -> Loaded:
        """A checkpoint at a precision, as a manifest names it."""
        return cls(precision_of(precision, formats, int8_cache).structure(checkpoint), checkpoint, formats)

    @property
    def bytes(self) -> int:
        """What the model's weights take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.state_dict().values())


def load(
    checkpoint: str | Path,
    precision: str,
    config: Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    weights_key: str | None = None,
    exit_rule: str | None = None,
    cases: Path | None = None,
    int8_cache: bool = False,
) -> Loaded:
    """Look at a checkpoint; and at `cases`, so that a wrong file is found before long work."""
    found = load_checkpoint(checkpoint, config, variant, weights_key=weights_key, exit_rule=exit_rule)
    model = precision_of(precision, {}, int8_cache).structure(found)
    if cases is not None:
        next(given_questions(model.spec, cases))
    return Loaded(model, found)


@dataclass(frozen=True)
class Made:
    """A bundle that nothing of has been executed yet, and its weights with the model on top of them."""

    bundle: Bundle
    weights: WeightsFile


def make(
    loaded: Loaded,
    folder: Path,
    target: Target,
    options: TargetOptions,
    progress: Progress = silent,
    words: TokenizerEntry | None = None,
) -> Made:
    """Fill a folder: from writing the weights to packaging."""
    links = find_links(loaded.model, loaded.checkpoint) if options.link else None
    progress("write the weights" if links is None else "look at the weights")
    linked = {} if links is None else map_links(folder, links)
    weights = write_weights(loaded.model, loaded.checkpoint.sources, folder / WEIGHTS, Weighing, linked)
    progress("capture the program")
    captured, rows = capture(weights.model), capture_rows(weights.model)
    progress("lower to ONNX")
    lowered = lower(captured, weights, dump=options.dump)
    if rows is not None:
        write = partial(write_program, rows.program, weights)
        graphs = lower_rows(rows, weights, options.dump)
        programs = (*lowered.programs, rows.program)
        lowered = replace(lowered, rows=graphs, write_row_program=write, programs=programs)
    shards = None
    if options.expert_shards is not None:
        progress("put the experts into shards")
        shards, files = shard(folder, weights.model.spec, options.expert_shards)
        lowered = replace(lowered, rows=(*lowered.rows, *files))
    built = build(lowered, folder, target, options, progress)
    progress("package")
    formats = loaded.formats
    bundle = package(
        folder, loaded.checkpoint, options.precision, captured, weights, built, words, shards, links, formats
    )
    return Made(bundle, weights)
