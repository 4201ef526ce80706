"""The pipeline, in the order the data flows.

A checkpoint is loaded, the eager model captured, the program lowered to ONNX, targets built, everything packaged, and
the result verified before it gets its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mythos_export.capture import capture, capture_rows, save_program
from mythos_export.destination import staged
from mythos_export.errors import TargetError
from mythos_export.lower import lower, lower_rows
from mythos_export.package import describe_bundle, finish
from mythos_export.precision import PRECISIONS
from mythos_export.progress import Progress, silent
from mythos_export.targets.registry import TARGETS
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.text_files import add_text
from mythos_export.verify import GOLDEN, Parity, make_golden, save_golden, verify_bundle
from mythos_export.verify.page import write_reports
from mythos_export.verify.results import PASS
from mythos_export.verify.stages.engine import Engine
from mythos_export.verify.tolerances import FACTOR
from mythos_model import load_checkpoint
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
    target: str = "onnx",
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    weights_key: str | None = None,
    precision: str | None = None,
    sm: str | None = None,
    batch: str | None = None,
    tokens: str | None = None,
    context: str | None = None,
    plugins: bool = False,
    tokenizer: str | Path | None = None,
    eos: Sequence[int] | None = None,
    cases: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Exported:
    """Checkpoint in, verified bundle out.

    Args:
        checkpoint: any form that `mythos_model.load_checkpoint` reads; `config`, `variant` and `weights_key` as
            there.
        output: the bundle's folder; a bundle that is there is replaced only with `force`, anything else never.
        target: `onnx` or `tensorrt`.
        precision: fp32, fp16, int8 or int4 (block-wise weights, the rest float32); the target's own by default.
        sm, batch, tokens, context: of target tensorrt: compute capabilities, and ranges min:opt:max.
        plugins: of target tensorrt: operators as plug-ins with Triton kernels (experimental).
        tokenizer, eos: instead of what lies beside the checkpoint; see `text_files.add_text`.
        cases: a safetensors file with `input_ids` int64 [n, T] to be among the golden cases.
        progress: called with the name of each stage as it begins.

    Raises:
        ParityError: an artifact differs from the eager model. Nothing is left under `output`; beside it, `output.repro`
            holds a reproduction for each stage that differs.
        Others of ExportError and ModelError, each with its `exit_code`.
    """
    if target not in TARGETS:
        raise TargetError(f"there is no target {target!r}; the targets are {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    options = TargetOptions(precision or chosen.default_precision, sm, batch, tokens, context, plugins)
    if options.precision not in PRECISIONS:
        raise TargetError(f"there is no precision {options.precision!r}; the precisions are {', '.join(PRECISIONS)}")
    chosen.check(options)

    with staged(Path(output), force, Path(checkpoint)) as folder:
        progress("load the checkpoint")
        loaded = load_checkpoint(checkpoint, config, variant, weights_key=weights_key)
        for note in loaded.notes:
            progress(f"note: {note}")
        model = PRECISIONS[options.precision].model(loaded)
        words = add_text(folder, loaded.source, model.spec.vocab_size, tokenizer, eos)
        progress("answer the golden cases with the eager model")
        golden = make_golden(model, options.precision, None if cases is None else Path(cases))
        save_golden(golden, folder / GOLDEN)
        progress("capture the program")
        captured = capture(model)
        save_program(captured, folder / "model.pt2")
        progress("lower to ONNX")
        lowered = lower(captured, folder)
        lower_rows(capture_rows(model), folder)
        onnx_built = TARGETS["onnx"].build(lowered, folder, options, progress)
        built: tuple[Built, ...] = (onnx_built,)
        if target != onnx_built.name:
            progress(f"build for {target}")
            built += (chosen.build(lowered, folder, options, progress),)
        tolerances = {"factor": FACTOR, "logits_relative": golden.tolerances.of("logits", 0)}
        progress("verify")
        draft = describe_bundle(folder, loaded, model.spec, options.precision, built, tolerances, words)
        output = Path(output)
        parity = verify_bundle(
            folder,
            draft,
            lambda stage, part=None: progress(f"verify {stage}", part),
            golden=golden,
            reproductions=output.with_name(f"{output.name}.repro"),
        )
        parity.raise_unless_passed()
        progress("write the report")
        write_reports(folder / "reports", parity, draft)
        built = proven(built, parity)
        manifest = describe_bundle(folder, loaded, model.spec, options.precision, built, tolerances, words)
        finish(folder, manifest)
    return Exported(output, manifest, parity)


def proven(built: tuple[Built, ...], parity: Parity) -> tuple[Built, ...]:
    """The targets in the state that the verification found them in: an engine that ran on a GPU and passed is verified.

    A GPU runs one engine: where a target has others, they were not executed, and nor is the target called verified.
    """
    passed = any(stage.name == Engine.name and stage.state == PASS for stage in parity.stages)

    def state(target: Built) -> str:
        engines = [name for name in target.files if name.endswith(".engine")]
        return VERIFIED if passed and len(engines) == 1 else target.state

    return tuple(replace(target, state=state(target)) for target in built)
