"""How far a bundle is held to the eager model before it is done: as a whole, by a reduced twin, or later."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from mythos_export.card import find_licence, with_card, write_index
from mythos_export.linked import map_links
from mythos_export.making import Loaded, Made, make
from mythos_export.package import PARTS, Bundle
from mythos_export.progress import Progress, silent
from mythos_export.targets.onnxruntime import proof_of
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import BASE, Built, TargetOptions
from mythos_export.verify import GOLDEN, Golden, Parity, make_golden, save_golden, verify_bundle
from mythos_export.verify.against import same_model
from mythos_export.verify.coverage import profiles_of
from mythos_export.verify.page import write_reports
from mythos_export.verify.reduced import make_few, scope, verify_whole
from mythos_export.verify.results import PASS
from mythos_export.verify.stages.operators import BODIES
from mythos_export.verify.tolerances import FACTOR
from mythos_export.verify.weights import Weighing
from mythos_export.weights_file import open_weights
from mythos_model import Checkpoint, load_checkpoint
from mythos_model.checkpoint.reduced import reduced, reductions
from mythos_runtime.manifest import NOT_VERIFIED, TWIN_VERIFIED, VERIFIED, Manifest
from mythos_runtime.program import WEIGHTS

FULL, TWIN, LATER = VERIFICATIONS = ("full", "twin", "later")
LARGE = 1 << 30  # bytes of weights in float32: more take minutes to be verified as a whole


@dataclass(frozen=True)
class Verified:
    """A bundle with golden cases, reports and the states that verification found its targets in; and how it went: None
    where it was put off."""

    bundle: Bundle
    parity: Parity | None


def choose(loaded: Loaded) -> str:
    """How a model is verified if nobody says: as a whole where that takes neither most of the memory nor an hour."""
    family = loaded.checkpoint.family
    whole = 4 * loaded.model.size
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
    write_reports(bundle.folder / PARTS["reports"], parity, bundle.manifest, index=True)
    write_index(bundle.folder / PARTS["reports"], bundle.manifest, parity)
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
    formats = made.bundle.manifest.formats
    smaller = reduced(checkpoint)
    with tempfile.TemporaryDirectory(prefix=".twin-", dir=bundle.folder) as folder:
        loaded = Loaded.of(smaller, precision, formats, bundle.manifest.spec.int8_cache)
        shards = None if bundle.manifest.shards is None else min(2, len(bundle.manifest.shards.counts))
        progress("make a reduced twin")
        options = TargetOptions(precision, expert_shards=shards, link=bundle.manifest.links is not None)
        twin = make(loaded, Path(folder), find_target(BASE), options)
        try:
            parity = _compared(twin.bundle, _answers(twin, cases, progress), reproductions, progress)
        finally:
            twin.weights.close()
    progress("answer a few cases with the eager model")
    golden = make_few(made.weights, precision)
    whole, problems = verify_whole(bundle.folder, bundle.manifest, golden, progress)
    said = scope(reductions(checkpoint, smaller), len(golden.cases))
    return golden, replace(parity, whole=whole, problems=(*parity.problems, *problems), scope=said)


def _answers(made: Made, cases: Path | None, progress: Progress) -> Golden:
    answering = "answer the golden cases with the eager model"
    progress(answering)
    precision, weights = made.bundle.manifest.precision, made.weights
    profiles = [each for target in made.bundle.manifest.targets for each in target.details.get("profiles", [])]
    return make_golden(
        weights.model,
        precision,
        cases,
        lambda part: progress(answering, part),
        weights.prints,
        profiles_of(weights.model.spec, profiles),
    )


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


def verify_later(
    folder: Path,
    manifest: Manifest,
    checkpoint: Path,
    config: Path | None = None,
    progress: Progress = silent,
    other_file: bool = False,
) -> Verified:
    """Verify a bundle that was exported with LATER, by the checkpoint that it was made from, and have it say so.

    Raises:
        CasesError: the checkpoint is another model, or, unless that may be (`other_file`), another file.
        ParityError: an artifact differs; the bundle stays as it was.
    """
    progress("load the checkpoint")
    found = load_checkpoint(checkpoint, config, default=manifest.config)
    found = same_model(manifest, found, checkpoint, other_file)
    loaded = Loaded.of(found, manifest.precision, manifest.formats, manifest.spec.int8_cache)
    progress("weigh the checkpoint's weights")
    linked = {} if manifest.links is None else map_links(folder, manifest.links)
    entry = manifest.files[WEIGHTS]
    weights = open_weights(loaded.model, found.sources, folder / WEIGHTS, entry, Weighing, linked)
    names = {target.name for target in manifest.targets if target.state == NOT_VERIFIED}
    built = tuple(Built(name, (), proof_of(manifest.spec)) for name in names)
    made = Made(Bundle(folder, manifest, built), weights)
    place = folder.resolve()
    try:
        verified = verify(made, found, choose(loaded), None, place.with_name(f"{place.name}.repro"), progress)
    finally:
        weights.close()
    finished = with_card(verified.bundle, find_licence(found.folder), verified.parity)
    finished.finish()
    return replace(verified, bundle=finished)
