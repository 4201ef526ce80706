"""The pipeline, in the order the data flows.

    load      checkpoint -> Loaded                the eager model, and what it came from
    capture   LoopedModel -> Captured             torch.export, the loop kept
    lower     Captured -> Lowered                 ONNX with one Loop
    build     Lowered -> Built                    what each target makes of it
    package   Captured, Lowered, Built -> Bundle  the manifest, and every file hashed
    verify    Bundle -> Verified                  every artifact against the eager model, inside the loop too

All of it happens out of sight; then the bundle gets its name, by one rename.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mythos_export.capture import capture, capture_rows
from mythos_export.destination import staged
from mythos_export.destination.storage import check_room
from mythos_export.errors import PackageError
from mythos_export.lower import lower, lower_rows
from mythos_export.package import PARTS, Bundle, package
from mythos_export.precision import PRECISIONS
from mythos_export.progress import Progress, silent
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import BASE, Built, TargetOptions, build, check_request
from mythos_export.text_files import add_text
from mythos_export.verify import GOLDEN, Parity, make_golden, save_golden, verify_bundle
from mythos_export.verify.cases import given_questions
from mythos_export.verify.coverage import profiles_of
from mythos_export.verify.page import write_reports
from mythos_export.verify.results import PASS
from mythos_export.verify.tolerances import FACTOR
from mythos_model import Checkpoint, LoopedModel, load_checkpoint
from mythos_runtime.manifest import VERIFIED, Manifest


@dataclass(frozen=True)
class Exported:
    """A finished bundle: where it is, what it says about itself, and how it compared."""

    path: Path
    manifest: Manifest
    parity: Parity


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

    with staged(output, force, Path(checkpoint)) as folder:
        progress("load the checkpoint")
        loaded = load(checkpoint, options.precision, config, variant, weights_key, exit_rule, given)
        for note in loaded.checkpoint.notes:
            progress(f"note: {note}")
        check_room(folder, loaded.bytes * (1 if target == BASE else 2))
        words = add_text(folder, loaded.checkpoint.source, loaded.model.spec.vocab_size, tokenizer, eos)
        progress("capture the program")
        captured, rows = capture(loaded.model), capture_rows(loaded.model)
        progress("lower to ONNX")
        lowered = lower(captured, folder, dump=dump)
        if rows is not None:
            lowered = replace(lowered, rows=lower_rows(rows, folder, dump))
        built = build(lowered, folder, chosen, options, progress)
        progress("package")
        bundle = package(folder, loaded.checkpoint, options.precision, captured, lowered, built, words)
        verified = verify(bundle, loaded.model, given, output.with_name(f"{output.name}.repro"), progress)
        finished = verified.bundle.without(left_out)
        finished.finish()
    return Exported(output, finished.manifest, verified.parity)


@dataclass(frozen=True)
class Loaded:
    """The eager model at the export's precision, and the checkpoint that it came from."""

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
    """Read a checkpoint, and round it; `cases` are looked at here, so that a wrong file is found before long work."""
    found = load_checkpoint(checkpoint, config, variant, weights_key=weights_key, exit_rule=exit_rule)
    model = PRECISIONS[precision].model(found)
    if cases is not None:
        next(given_questions(model.spec, cases))
    return Loaded(model, found)


@dataclass(frozen=True)
class Verified:
    """A bundle with golden cases, reports and the states that verification found its targets in; and how it went."""

    bundle: Bundle
    parity: Parity


def verify(
    bundle: Bundle,
    model: LoopedModel,
    cases: Path | None = None,
    reproductions: Path | None = None,
    progress: Progress = silent,
) -> Verified:
    """Have the eager model answer the golden cases, and hold every artifact of the bundle to the answers.

    Raises:
        ParityError: one differs; a reproduction of each failure is in `reproductions`.
    """
    answering = "answer the golden cases with the eager model"
    progress(answering)
    described = [each for target in bundle.manifest.targets for each in target.details.get("profiles", [])]
    golden = make_golden(
        model,
        bundle.manifest.precision,
        cases,
        lambda part: progress(answering, part),
        profiles_of(model.spec, described),
    )
    save_golden(golden, bundle.folder / GOLDEN)
    parity = verify_bundle(
        bundle.folder,
        bundle.manifest,
        lambda stage, part=None: progress(f"verify {stage}", part),
        golden=golden,
        reproductions=reproductions,
    )
    parity.raise_unless_passed()
    progress("write the report")
    proven = {target.name for target in bundle.built if _is_proven(target, parity)}
    targets = tuple(
        replace(target, state=VERIFIED) if target.name in proven else target for target in bundle.manifest.targets
    )
    tolerances = {"factor": FACTOR, "logits_relative": golden.tolerances.of("logits", 0)}
    manifest = replace(bundle.manifest, targets=targets, tolerances=tolerances)
    write_reports(bundle.folder / PARTS["reports"], parity, manifest)
    return Verified(replace(bundle, manifest=manifest).grown(), parity)


def _is_proven(target: Built, parity: Parity) -> bool:
    passed = {stage.name for stage in parity.stages if stage.state == PASS}
    return bool(target.proof) and passed >= set(target.proof)


def _left_out(parts: Collection[str] | None) -> set[str]:
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise PackageError(f"there is no part {unknown[0]!r} of a bundle; the parts are {', '.join(PARTS)}")
    return set() if parts is None else set(PARTS) - set(parts)
