"""The pipeline, in the order the data flows.

    load      checkpoint -> Loaded                the model without weights, and what it comes from
    write     Loaded -> WeightsFile               the weights, one after the other; the model lies on top of them
    capture   LoopedModel -> Captured             torch.export, the loop kept
    lower     Captured -> Lowered                 ONNX with one Loop
    build     Lowered -> Built                    what each target makes of it
    package   Captured, Built -> Bundle           the manifest, and every file hashed
    verify    Bundle -> Verified                  every artifact against the eager model, inside the loop too

All of it happens out of sight; then the bundle gets its name, by one rename.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from mythos_export.capture import capture, capture_rows
from mythos_export.destination import staged
from mythos_export.destination.storage import check_room
from mythos_export.errors import PackageError
from mythos_export.lower import lower, lower_rows
from mythos_export.package import PARTS, Bundle, package
from mythos_export.precision import PRECISIONS
from mythos_export.progress import Progress, silent
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import BASE, Built, Target, TargetOptions, build, check_request
from mythos_export.text_files import add_text
from mythos_export.verify import GOLDEN, Golden, Parity, make_golden, save_golden, verify_bundle
from mythos_export.verify.cases import given_questions
from mythos_export.verify.page import write_reports
from mythos_export.verify.reduced import make_few, scope, verify_whole
from mythos_export.verify.results import PASS
from mythos_export.verify.tolerances import FACTOR
from mythos_export.verify.weights import Weighing
from mythos_export.weights_file import WeightsFile, write_weights
from mythos_model import Checkpoint, LoopedModel, load_checkpoint
from mythos_model.checkpoint.reduced import reduced, reductions
from mythos_runtime.manifest import NOT_VERIFIED, TWIN_VERIFIED, VERIFIED, Manifest
from mythos_runtime.program import WEIGHTS
from mythos_runtime.tokenizer_entry import TokenizerEntry

FULL, TWIN, LATER = VERIFICATIONS = ("full", "twin", "later")
LARGE = 1 << 30  # bytes of weights in float32: more take minutes to be verified as a whole
BODIES = 5  # times as much memory the portable bodies take


@dataclass(frozen=True)
class Exported:
    """A finished bundle: where it is, what it says about itself, and how it compared; None where that was put off."""

    path: Path
    manifest: Manifest
    parity: Parity | None


def export(
    checkpoint: str | Path,
    output: str | Path,
    target: str = BASE,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    weights_key: str | None = None,
    exit_rule: str | None = None,
    precision: str | None = None,
    sm: str | None = None,
    batch: str | None = None,
    tokens: str | None = None,
    context: str | None = None,
    plugins: bool = False,
    tokenizer: str | Path | None = None,
    eos: Sequence[int] | None = None,
    cases: str | Path | None = None,
    parts: Collection[str] | None = None,
    force: bool = False,
    verification: str | None = None,
    dump_passes: str | Path | None = None,
    progress: Progress = silent,
) -> Exported:
    """Checkpoint in, verified bundle out.

    Args:
        checkpoint: any form that `mythos_model.load_checkpoint` reads; `config`, `variant`,
            `weights_key` and `exit_rule` as there.
        output: the bundle's folder; a bundle that is there is replaced only with `force`, anything else never.
        target: `onnx` or `tensorrt`.
        precision: fp32, fp16, int8 or int4 (block-wise weights, the rest float32); the target's own by default.
        sm, batch, tokens, context: of target tensorrt: compute capabilities, and ranges min:opt:max.
        plugins: of target tensorrt: operators as plug-ins with Triton kernels (experimental).
        tokenizer, eos: instead of what lies beside the checkpoint; see `text_files.add_text`.
        cases: a safetensors file with `input_ids` int64 [n, T] to be among the golden cases.
        parts: which of `package.PARTS` the bundle keeps; all by default. All are made, and used to verify it.
        verification: full; twin, which verifies a reduced twin on the same weights in place of a model that is too
            large for it, and of the model itself the weights and a few cases; later, which leaves a bundle that says
            everywhere that it is not verified. By default full, or twin for models of more than 256 million weights.
        dump_passes: a folder for the graph before and after each pass.
        progress: called with the name of each stage as it begins.

    Raises:
        ParityError: an artifact differs from the eager model. Nothing is left under `output`; beside it, `output.repro`
            holds a reproduction for each stage that differs.
        StorageError: the disk is full, read-only or closed to this user.
        Others of ExportError and ModelError, each with its `exit_code`.
    """
    output, given = Path(output), None if cases is None else Path(cases)
    chosen = find_target(target)
    dump = None if dump_passes is None else Path(dump_passes)
    options = TargetOptions(precision or chosen.precisions[0], sm, batch, tokens, context, plugins, dump)
    check_request(chosen, options)
    left_out = _left_out(parts)
    if verification not in (None, *VERIFICATIONS):
        raise PackageError(f"there is no verification {verification!r}; there are {', '.join(VERIFICATIONS)}")

    with staged(output, force, Path(checkpoint)) as folder:
        progress("load the checkpoint")
        loaded = load(checkpoint, options.precision, config, variant, weights_key, exit_rule, given)
        for note in loaded.checkpoint.notes:
            progress(f"note: {note}")
        check_room(folder, loaded.bytes * (1 if target == BASE else 2))
        words = add_text(folder, loaded.checkpoint.source, loaded.model.spec.vocab_size, tokenizer, eos)
        made = make(loaded, folder, chosen, options, progress, words)
        place = output.with_name(f"{output.name}.repro")
        verified = verify(made, loaded.checkpoint, verification or choose(loaded), given, place, progress)
        finished = verified.bundle.without(left_out)
        finished.finish()
    return Exported(output, finished.manifest, verified.parity)


@dataclass(frozen=True)
class Loaded:
    """The model at the export's precision, without weights, and the checkpoint that has them."""

    model: LoopedModel
    checkpoint: Checkpoint

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
) -> Loaded:
    """Look at a checkpoint; and at `cases`, so that a wrong file is found before long work."""
    found = load_checkpoint(checkpoint, config, variant, weights_key=weights_key, exit_rule=exit_rule)
    model = PRECISIONS[precision].structure(found)
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
    progress("write the weights")
    weights = write_weights(loaded.model, loaded.checkpoint.sources, folder / WEIGHTS, Weighing)
    progress("capture the program")
    captured, rows = capture(weights.model), capture_rows(weights.model)
    progress("lower to ONNX")
    lowered = lower(captured, weights, dump=options.dump)
    if rows is not None:
        lowered = replace(lowered, rows=lower_rows(rows, weights, options.dump))
    built = build(lowered, folder, target, options, progress)
    progress("package")
    return Made(package(folder, loaded.checkpoint, options.precision, captured, weights, built, words), weights)


@dataclass(frozen=True)
class Verified:
    """A bundle with golden cases, reports and the states that verification found its targets in; and how it went: None
    where it was put off."""

    bundle: Bundle
    parity: Parity | None


def choose(loaded: Loaded) -> str:
    """How a model is verified if nobody says: as a whole where that takes neither most of the memory nor an hour."""
    family, config = loaded.checkpoint.family, loaded.checkpoint.config
    whole = 4 * sum(tensor.numel() for tensor in family.model.structure(config, torch.float32).parameters())
    fits = whole <= LARGE and whole * BODIES <= psutil.virtual_memory().available
    return FULL if fits or family.twin is None else TWIN


def verify(
    made: Made,
    checkpoint: Checkpoint,
    verification: str,
    cases: Path | None = None,
    reproductions: Path | None = None,
    progress: Progress = silent,
) -> Verified:
    """Have the eager model answer the golden cases, and hold every artifact of the bundle to the answers.

    Args:
        verification: FULL; TWIN, all cases on a reduced twin and a few on the model itself; or LATER.

    Raises:
        ParityError: one differs; a reproduction of each failure is in `reproductions`.
    """
    bundle = made.bundle
    if verification == LATER:
        return Verified(
            _with_states(bundle, {target.name for target in bundle.built if target.proof}, NOT_VERIFIED), None
        )
    golden, parity = (_verify_full if verification == FULL else _verify_twin)(
        made, checkpoint, cases, reproductions, progress
    )
    parity.raise_unless_passed()
    progress("write the report")
    save_golden(golden, bundle.folder / GOLDEN)
    proven = {target.name for target in bundle.built if _is_proven(target, parity)}
    bundle = _with_states(bundle, proven, VERIFIED if verification == FULL else TWIN_VERIFIED)
    tolerances = {"factor": FACTOR, "logits_relative": golden.tolerances.of("logits", 0)}
    bundle = replace(bundle, manifest=replace(bundle.manifest, tolerances=tolerances))
    write_reports(bundle.folder / PARTS["reports"], parity, bundle.manifest)
    return Verified(bundle.grown(), parity)


Compared = tuple[Golden, Parity]
"""The cases that go into the bundle, and how it went."""


def _verify_full(
    made: Made, checkpoint: Checkpoint, cases: Path | None, reproductions: Path | None, progress: Progress
) -> Compared:
    golden = _answers(made, cases, progress)
    return golden, _compared(made.bundle, golden, reproductions, progress)


def _verify_twin(
    made: Made, checkpoint: Checkpoint, cases: Path | None, reproductions: Path | None, progress: Progress
) -> Compared:
    bundle, precision = made.bundle, made.bundle.manifest.precision
    smaller = reduced(checkpoint)
    with tempfile.TemporaryDirectory(prefix=".twin-", dir=bundle.folder) as folder:
        loaded = Loaded(PRECISIONS[precision].structure(smaller), smaller)
        progress("make a reduced twin")
        twin = make(loaded, Path(folder), find_target(BASE), TargetOptions(precision))
        parity = _compared(twin.bundle, _answers(twin, cases, progress), reproductions, progress)
    progress("answer a few cases with the eager model")
    golden = make_few(made.weights.model, precision, made.weights.prints)
    made.weights.forget()
    whole, problems = verify_whole(bundle.folder, bundle.manifest, golden, progress)
    said = scope(reductions(checkpoint, smaller), len(golden.cases))
    return golden, replace(parity, whole=whole, problems=(*parity.problems, *problems), scope=said)


def _answers(made: Made, cases: Path | None, progress: Progress) -> Golden:
    answering = "answer the golden cases with the eager model"
    progress(answering)
    precision, weights = made.bundle.manifest.precision, made.weights
    return make_golden(weights.model, precision, cases, lambda part: progress(answering, part), weights.prints)


def _compared(bundle: Bundle, golden: Golden, reproductions: Path | None, progress: Progress) -> Parity:
    return verify_bundle(
        bundle.folder,
        bundle.manifest,
        lambda stage, part=None: progress(f"verify {stage}", part),
        golden=golden,
        reproductions=reproductions,
    )


def _with_states(bundle: Bundle, names: Collection[str], state: str) -> Bundle:
    targets = tuple(replace(each, state=state) if each.name in names else each for each in bundle.manifest.targets)
    return replace(bundle, manifest=replace(bundle.manifest, targets=targets))


def _is_proven(target: Built, parity: Parity) -> bool:
    passed = {stage.name for stage in parity.stages if stage.state == PASS}
    return bool(target.proof) and passed >= set(target.proof)


def _left_out(parts: Collection[str] | None) -> set[str]:
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise PackageError(f"there is no part {unknown[0]!r} of a bundle; the parts are {', '.join(PARTS)}")
    return set() if parts is None else set(PARTS) - set(parts)
