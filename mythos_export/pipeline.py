"""The pipeline, in the order the data flows.

A checkpoint is loaded, the eager model captured, the program lowered to ONNX, targets built, everything packaged, and
the result verified before it gets its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_export.capture import capture, save_program
from mythos_export.cases import make_cases
from mythos_export.errors import TargetError
from mythos_export.lower import lower
from mythos_export.package import DTYPES, add_tokenizer, describe_bundle, finish, staged
from mythos_export.targets.registry import TARGETS
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.verify import GOLDEN, NEAR_TIE, Parity, save_golden, tolerance_of, verify_bundle
from mythos_model import MythosModel, load_checkpoint
from mythos_runtime.manifest import Manifest


@dataclass(frozen=True)
class Exported:
    """A finished bundle: where it is, what it says about itself, and how it compared."""

    path: Path
    manifest: Manifest
    parity: Parity


def export(
    checkpoint: str | Path,
    output: str | Path,
    target: str = "onnx",
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    precision: str | None = None,
    sm: str | None = None,
    batch: str | None = None,
    tokens: str | None = None,
    context: str | None = None,
    plugins: bool = False,
    tokenizer: str | Path | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> Exported:
    """Checkpoint in, verified bundle out.

    Args:
        checkpoint: any form that `mythos_model.load_checkpoint` reads; `config` and `variant` as there.
        output: the bundle's folder; replaced only with `force`.
        target: `onnx` or `tensorrt`.
        precision: fp32 or fp16; the target's own by default.
        sm, batch, tokens, context: of target tensorrt: compute capabilities, and ranges min:opt:max.
        plugins: of target tensorrt: operators as plug-ins with Triton kernels (experimental).
        tokenizer: "bytes", or the path of a `tokenizer.json` to put into the bundle.
        progress: called with the name of each stage as it begins.

    Raises:
        ParityError: an artifact differs from the eager model; nothing is left under `output`.
        Others of ExportError, ModelError, TensorRTBuildError and KernelBuildError, each with its `exit_code`.
    """
    if target not in TARGETS:
        raise TargetError(f"there is no target {target!r}; the targets are {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    options = TargetOptions(precision or chosen.default_precision, sm, batch, tokens, context, plugins)
    if options.precision not in DTYPES:
        raise TargetError(f"there is no precision {options.precision!r}; the precisions are {', '.join(DTYPES)}")
    chosen.check(options)

    with staged(Path(output), force) as folder:
        progress("load the checkpoint")
        loaded = load_checkpoint(checkpoint, config, variant)
        model = MythosModel.from_state(loaded.config, loaded.state, DTYPES[options.precision])
        words = add_tokenizer(folder, tokenizer, loaded.config.vocab_size)
        progress("answer the golden cases with the eager model")
        cases = make_cases(model, options.precision)
        tolerance = tolerance_of(cases, options.precision)
        save_golden(cases, folder / GOLDEN, tolerance)
        progress("capture the program")
        captured = capture(model)
        save_program(captured, folder / "model.pt2")
        progress("lower to ONNX")
        lowered = lower(captured, folder)
        onnx_built = TARGETS["onnx"].build(lowered, folder, options, progress)
        built: tuple[Built, ...] = (onnx_built,)
        if target != onnx_built.name:
            progress(f"build for {target}")
            built += (chosen.build(lowered, folder, options, progress),)
        tolerances = {"logits_relative": tolerance, "near_tie": NEAR_TIE[options.precision]}
        progress("verify")
        draft = describe_bundle(folder, loaded, options.precision, built, tolerances, words)
        parity = verify_bundle(folder, draft, lambda stage: progress(f"verify {stage}"))
        parity.raise_unless_passed()
        reports = folder / "reports"
        reports.mkdir()
        (reports / "parity.json").write_text(json.dumps(parity.to_json(), indent=2) + "\n", encoding="utf-8")
        manifest = describe_bundle(folder, loaded, options.precision, built, tolerances, words)
        finish(folder, manifest)
    return Exported(Path(output), manifest, parity)
