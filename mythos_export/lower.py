"""Captured program -> ONNX: one Loop, custom-domain nodes with portable function bodies, weights in one safetensors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from mythos_export.capture import INPUT_NAMES, OUTPUT_NAMES, Captured
from mythos_export.errors import LowerError
from mythos_export.kernels import standard
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import OPSET
from mythos_export.passes.attach_functions import attach_functions
from mythos_export.passes.drop_metadata import drop_metadata
from mythos_export.passes.externalize_weights import externalize_weights
from mythos_export.passes.name_dimensions import name_dimensions
from mythos_export.passes.name_weights import name_weights
from mythos_export.passes.remove_unused import remove_unused
from mythos_export.passes.static_reshapes import static_reshapes
from mythos_model import MythosConfig

Pass = Callable[[ir.Model], None]

# In order; each changes the model in place.
PASSES: tuple[Pass, ...] = (
    static_reshapes,  # targets as constants, while the tracer's symbols tell which dimensions stay
    remove_unused,  # what computed the targets
    name_dimensions,  # s51 -> tokens
    name_weights,  # model.embed.weight -> embed.weight
    attach_functions,  # mythos::moe and friends get bodies that any runtime can inline
    drop_metadata,  # stack traces with paths of this machine
)


@dataclass(frozen=True)
class Lowered:
    """An ONNX graph on disk.

    Attributes:
        path: model.onnx.
        weights: the safetensors file that its external data points into, in the same folder.
        config: the model's configuration.
    """

    path: Path
    weights: Path
    config: MythosConfig


def lower(captured: Captured, folder: Path, name: str = "model.onnx") -> Lowered:
    """Write the program as ONNX into `folder`, with its weights beside it in `weights.safetensors`.

    Raises:
        LowerError: the conversion failed, or the result does not pass onnx.checker's full check.
    """
    model = _convert(captured)
    for run_pass in PASSES:
        run_pass(model)
    path, weights = folder / name, folder / "weights.safetensors"
    externalize_weights(model, weights)
    ir.save(model, path)
    check(path)
    return Lowered(path, weights, captured.config)


def check(path: Path) -> None:
    """onnx.checker's full check, and the promise that the graph holds exactly one Loop."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise LowerError(f"the ONNX graph is not valid: {error}") from error
    except onnx.shape_inference.InferenceError as error:
        raise LowerError(f"the shapes of the ONNX graph contradict each other: {error}") from error
    loops = [node for node in onnx.load(path, load_external_data=False).graph.node if node.op_type == "Loop"]
    if len(loops) != 1:
        raise LowerError(f"the ONNX graph should hold one Loop, found {len(loops)}")


def _convert(captured: Captured) -> ir.Model:
    table = {op.torch_op: op.translation() for op in OPERATORS.values()} | standard.translations()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                captured.program,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUT_NAMES),
                output_names=list(OUTPUT_NAMES),
                custom_translation_table=table,
                verbose=False,
            )
    except Exception as error:  # torch.onnx raises many types; what it says is what helps
        raise LowerError(f"torch.onnx could not convert the program: {str(error).strip().splitlines()[0]}") from error
    if program is None:
        raise LowerError("torch.onnx returned no program")
    return program.model
