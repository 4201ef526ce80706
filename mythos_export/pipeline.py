"""The pipeline, in the order the data flows.

    load      checkpoint -> Loaded                the model without weights, and what it comes from
    write     Loaded -> WeightsFile               the weights, one after the other; the model is on top of them
    capture   LoopedModel -> Captured             torch.export, the loop kept
    lower     Captured -> Lowered                 ONNX with one Loop
    build     Lowered -> Built                    what each target makes of it
    package   Captured, Built -> Bundle           the manifest, and every file hashed
    verify    Bundle -> Verified                  every artifact against the eager model, inside the loop too

All of it happens out of sight; then the bundle gets its name, by one rename.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mythos_export.card import find_licence, with_card
from mythos_export.destination import staged
from mythos_export.destination.storage import check_room
from mythos_export.errors import PackageError
from mythos_export.linked import relative
from mythos_export.making import Loaded, load, make
from mythos_export.mix import Mix, choose_mix, write_mix
from mythos_export.package import PARTS, Bundle
from mythos_export.precision import AUTO, is_int8_cache, with_activations
from mythos_export.progress import Progress, silent
from mythos_export.shards.cut import check_shards
from mythos_export.shards.files import stripped
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import BASE, TargetOptions, check_request
from mythos_export.text_files import add_text
from mythos_export.verification import LATER, VERIFICATIONS, choose, verify
from mythos_export.verify import Parity
from mythos_runtime.manifest import MIXED, Manifest

COPY, LINK = "copy", "link"  # what becomes of the weights


@dataclass(frozen=True)
class Exported:
    """A finished bundle: where it is, what it says about itself, how it compared (None where that was put off), and how
    its formats were chosen, with --precision auto."""

    path: Path
    manifest: Manifest
    parity: Parity | None
    mix: Mix | None = None


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
    max_kl: float | None = None,
    activations: str | None = None,
    cache: str | None = None,
    sm: str | None = None,
    batch: str | None = None,
    tokens: str | None = None,
    context: str | None = None,
    plugins: bool = False,
    rows: bool = False,
    expert_shards: int | None = None,
    weights: str = COPY,
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
        target: `onnx`, `tensorrt` or `cuda`.
        precision: fp32, fp16, int8, int4 (block-wise weights, the rest float32), fp8 (e4m3 with a scale for each row,
            the rest float32; of target cuda), or auto: a format for each group of matrices (`mix.choose_mix`), the
            bundle's precision being `mixed` then. The target's own by default.
        max_kl: with auto, the most nats per token from the float32 model, on `cases`, or else on drawn ids.
        activations: fp32, the default, or int8: what int8 and int4 weights are multiplied by is rounded to int8 in
            blocks of 32; the bundle's precision is int8a8 or int4a8 then.
        cache: fp32, the default, or int8: cache lines are rounded to int8, and engines keep them so
            (`mythos_model.cache_lines`). Of targets onnx and cuda, in precisions that compute in float32, and not with
            activations in int8.
        sm, batch, tokens, context: of target tensorrt: compute capabilities, and ranges min:opt:max.
        plugins: of target tensorrt: operators as plug-ins with Triton kernels (experimental).
        rows: of target tensorrt: engines of the row graphs, too (nothing runs them yet).
        expert_shards: cut the step at its experts, for so many processes that hold a part of them each, and a trunk
            (`mythos_runtime.shards`); the bundle then does not hold the model as one graph. Of target onnx.
        weights: copy, or link: they stay in the checkpoint's files, which the bundle then needs where they are, with
            their content as it is. Of target onnx, in fp32 or fp16.
        tokenizer, eos: instead of what is beside the checkpoint; see `text_files.add_text`.
        cases: a safetensors file with `input_ids` int64 [n, T] to be among the golden cases.
        parts: which of `package.PARTS` the bundle keeps; all by default. All are made, and used to verify it.
        verification: full; twin, which verifies a reduced twin on the same weights in place of a model that is too
            large for it, and of the model itself the weights and a few cases; later, which leaves a bundle that says
            everywhere that it is not verified. By default full, or twin for models of more than 268 million weights.
        dump_passes: a folder for the graph before and after each pass.
        progress: called with the name of each stage as it begins.

    Raises:
        ParityError: an artifact differs from the eager model. Nothing is left under `output`; beside it, `output.repro`
            holds a reproduction for each stage that differs.
        MixError: nothing can be rounded within `max_kl`.
        StorageError: the disk is full, read-only or closed to this user.
        Others of ExportError and ModelError, each with its `exit_code`.
    """
    output, given = Path(output), None if cases is None else Path(cases)
    chosen = find_target(target)
    dump = None if dump_passes is None else Path(dump_passes)
    if (precision == AUTO) != (max_kl is not None):
        raise PackageError("--precision auto and --max-kl go together: the formats are chosen to keep to that bound")
    wanted = with_activations(precision or chosen.precisions[0], activations)
    if weights not in (COPY, LINK):
        raise PackageError(f"weights should be {COPY} or {LINK}, found {weights!r}")
    options = TargetOptions(
        wanted, sm, batch, tokens, context, plugins, rows, expert_shards, weights == LINK, dump, cache == "int8"
    )
    check_request(chosen, options)  # before the precision: a target has no such caches at any
    int8_cache = is_int8_cache(wanted, cache)
    if precision == AUTO:
        options = replace(options, precision=MIXED)
    left_out = _left_out(parts)
    if verification not in (None, *VERIFICATIONS):
        raise PackageError(f"there is no verification {verification!r}; there are {', '.join(VERIFICATIONS)}")
    if expert_shards is not None and verification == LATER:
        raise PackageError("--expert-shards and --verify later do not go together: what is verified is there only now")

    with staged(output, force, Path(checkpoint)) as folder:
        progress("load the checkpoint")
        plainly = options.precision if max_kl is None else "fp32"
        loaded, mix = load(checkpoint, plainly, config, variant, weights_key, exit_rule, given, int8_cache), None
        for note in loaded.checkpoint.notes:
            progress(f"note: {note}")
        chosen.check_model(loaded.model.spec, options)
        if expert_shards is not None:
            check_shards(loaded.model, expert_shards)
        if max_kl is not None:
            choosing = "choose a format for each group of matrices"
            progress(choosing)
            mix = choose_mix(loaded.checkpoint, max_kl, given, lambda part: progress(choosing, part))
            loaded = Loaded.of(loaded.checkpoint, MIXED, mix.formats)
        check_room(folder, 0 if options.link else loaded.bytes * (1 if target == BASE and expert_shards is None else 2))
        words = add_text(folder, loaded.checkpoint.source, loaded.model.spec.vocab_size, tokenizer, eos)
        made = make(loaded, folder, chosen, options, progress, words)
        if mix is not None:
            write_mix(folder / PARTS["reports"], mix, loaded.checkpoint.source.name)
        place = output.with_name(f"{output.name}.repro")
        try:
            verified = verify(made, loaded.checkpoint, verification or choose(loaded), given, place, progress)
        finally:
            made.weights.close()
        finished = _placed(stripped(verified.bundle.without(left_out)), output)
        finished = with_card(finished, find_licence(loaded.checkpoint.folder), verified.parity)
        finished.finish()
    return Exported(output, finished.manifest, verified.parity, mix)


def _placed(bundle: Bundle, output: Path) -> Bundle:
    """With its links as they are from where it is to lie."""
    links = bundle.manifest.links
    return (
        bundle if links is None else replace(bundle, manifest=replace(bundle.manifest, links=relative(links, output)))
    )


def _left_out(parts: Collection[str] | None) -> set[str]:
    unknown = sorted(set(parts or ()) - set(PARTS))
    if unknown:
        raise PackageError(f"there is no part {unknown[0]!r} of a bundle; the parts are {', '.join(PARTS)}")
    return set() if parts is None else set(PARTS) - set(parts)
