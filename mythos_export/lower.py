"""Captured program -> ONNX: one Loop, custom-domain nodes with portable function bodies, weights in one safetensors."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxscript.optimizer import optimize_ir
from torch.export import ExportedProgram

from mythos_export.capture import Captured, first_line
from mythos_export.errors import LowerError
from mythos_export.kernels import standard
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import OPSET
from mythos_export.passes.attach_functions import attach_functions
from mythos_export.passes.drop_metadata import drop_metadata
from mythos_export.passes.externalize_weights import link_weights
from mythos_export.passes.lift_constants import lift_constants
from mythos_export.passes.name_dimensions import name_dimensions
from mythos_export.passes.name_taps import name_taps
from mythos_export.passes.name_taps import translations as tap_translations
from mythos_export.passes.name_weights import name_weights
from mythos_export.passes.products_by_row import products_by_row
from mythos_export.passes.remove_unused import remove_unused
from mythos_export.passes.share_products import share_products
from mythos_export.passes.split_graphs import split_graphs
from mythos_export.passes.static_reshapes import static_reshapes
from mythos_export.step_in_loop import write_loops
from mythos_export.undecomposed import convert
from mythos_export.weights_file import WeightsFile
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import STEP
from mythos_runtime.spec import LoopSpec

COMPUTED, ROW_COMPUTED = "computed.safetensors", "rows.safetensors"

Pass = Callable[[ir.Model], None]
MayFold = Callable[[ir.Node], bool | None]


def passes(ports: Ports) -> tuple[Pass, ...]:
    """In order; each changes the model in place."""
    return (
        name_taps,  # what verification looks at gets its name, and costs no node
        static_reshapes,  # targets as constants, while the tracer's symbols tell which dimensions stay
        lift_constants,  # out of the loop
        remove_unused,  # what computed the targets
        functools.partial(name_dimensions, ports=ports),  # s51 -> tokens
        name_weights,  # model.embed.weight -> embed.weight
        attach_functions,  # mythos::moe and friends get bodies that any runtime can inline
        drop_metadata,  # stack traces with paths of this machine
    )


@dataclass(frozen=True)
class Lowered:
    """An ONNX graph on disk.

    Attributes:
        path: model.onnx.
        spec: of the model.
        files: the graph, and what its external data points into, in the same folder; the first is the model's weights.
        rows: the files of the row graphs (`lower_rows`).
        write_row_program: writes them as a program for PyTorch, without the weights that the file of weights holds.
        programs: what was captured: the model, and the row graphs, if there are any.
    """

    path: Path
    spec: LoopSpec
    files: tuple[Path, ...]
    rows: tuple[Path, ...] = ()
    write_row_program: Callable[[Path], None] | None = None
    programs: tuple[ExportedProgram, ...] = ()


def lower(captured: Captured, weights: WeightsFile, name: str = "model.onnx", dump: Path | None = None) -> Lowered:
    """Write the program as ONNX beside the model's weights, which it points into. What it holds beyond them, computed
    once, goes into `computed.safetensors`.

    Args:
        dump: a folder for what each pass did; see `run_passes`.

    Raises:
        LowerError: the conversion failed, or the result does not pass onnx.checker's full check.
    """
    model = _lowered(captured, weights, None if dump is None else dump / "onnx")
    folder = weights.path.parent
    path, computed = folder / name, folder / COMPUTED
    link_weights([model], weights, computed)
    ir.save(model, path)
    check(path)
    files = (path, weights.path, *([computed] if computed.exists() else []))
    return Lowered(path, captured.spec, files, programs=(captured.program,))


def lower_rows(captured: Captured, weights: WeightsFile, dump: Path | None = None) -> tuple[Path, ...]:
    """Write the row graphs, and the step in a Loop, where `lower` wrote the model, whose weights they share. Returns
    the files.

    What only they have (the table of rotary angles) goes into `rows.safetensors`. All are in one folder, for ONNX
    Runtime follows no path that leads out of a graph's own.

    Raises:
        LowerError: as `lower`.
    """
    models = split_graphs(_lowered(captured, weights, None if dump is None else dump / "rows"), captured.graphs)
    folder = weights.path.parent
    if weights.linked:
        products_by_row(models.values(), weights)
    share_products(models.values(), weights)
    link_weights(models.values(), weights, folder / ROW_COMPUTED, folder / COMPUTED)
    paths = tuple(folder / f"{name}.onnx" for name in models)
    for path, model in zip(paths, models.values(), strict=True):
        ir.save(model, path)
        check(path, loops=0)
    loops, own = write_loops(folder / f"{STEP}.onnx", captured.spec.graphs[STEP]), folder / ROW_COMPUTED
    if loops is not None:
        check(loops)
    return (*paths, *([loops] if loops is not None else []), *([own] if own.exists() else []))


def _lowered(captured: Captured, weights: WeightsFile, dump: Path | None) -> ir.Model:
    model = _convert(captured, nothing_of(weights.linked) if weights.linked else None)
    run_passes(model, passes(captured.ports), dump)
    return model


def nothing_of(weights: Container[str]) -> MayFold:
    """Nothing is computed now of these weights, by the model's names, which is no longer what is in their files."""

    def may_fold(node: ir.Node) -> bool | None:
        known = (value.name.removeprefix("model.") for value in node.inputs if value is not None and value.name)
        return False if any(name in weights for name in known) else None

    return may_fold


def lowered(captured: Captured, may_fold: MayFold) -> ir.Model:
    """The graph of a program in memory, its weights in it; `may_fold` says of which nodes results may be computed now
    (None: as usual). Raises LowerError."""
    model = _convert(captured, may_fold)
    run_passes(model, passes(captured.ports))
    return model


def run_passes(model: ir.Model, chosen: Sequence[Pass], dump: Path | None = None) -> None:
    """Change a graph in place. Into `dump` goes the graph, without weights, as it is before and after each."""
    _dump(model, dump, 0, "before")
    for number, run_pass in enumerate(chosen, 1):
        run_pass(model)
        _dump(model, dump, number, getattr(run_pass, "func", run_pass).__name__)


def _dump(model: ir.Model, folder: Path | None, number: int, name: str) -> None:
    """The graph as text: names, types and nodes, which is what a pass changes."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}_{name}.txt").write_text(str(model) + "\n", encoding="utf-8")


def check(path: Path, loops: int = 1) -> None:
    """onnx.checker's full check, and the promise that the graph holds exactly one Loop (a row graph: none)."""
    problem = problem_of(path, loops)
    if problem is not None:
        raise LowerError(f"the ONNX graph {path.name} {problem}")


def problem_of(model: Path | onnx.ModelProto, loops: int) -> str | None:
    """What is wrong with a graph, in a file or in memory; None where nothing is."""
    try:
        onnx.checker.check_model(str(model) if isinstance(model, Path) else model, full_check=True)
    except onnx.checker.ValidationError as error:
        return f"is not valid: {error}"
    except onnx.shape_inference.InferenceError as error:
        return f"has shapes that contradict each other: {error}"
    graph = onnx.load(model, load_external_data=False).graph if isinstance(model, Path) else model.graph
    found = sum(node.op_type == "Loop" for node in graph.node)
    return None if found == loops else f"should hold {loops or 'no'} Loop, found {found}"


def _convert(captured: Captured, may_fold: MayFold | None = None) -> ir.Model:
    table = {op.torch_op: op.translation() for op in OPERATORS.values()}
    table |= standard.translations() | tap_translations()
    ports = captured.ports
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = convert(
                captured.program,
                table,
                opset_version=OPSET,
                input_names=[port.name for port in ports.inputs],
                output_names=[port.name for port in ports.outputs],
                verbose=False,
                optimize=may_fold is None,
            )
            if program is not None and may_fold is not None:
                optimize_ir(program.model, should_fold=may_fold)
    except Exception as error:  # torch.onnx raises many types; what it says is what helps
        raise LowerError(f"torch.onnx could not convert the program: {first_line(error)}") from error
    if program is None:
        raise LowerError("torch.onnx returned no program")
    return program.model
