"""Target `cuda`: the operators' Triton kernels, compiled for the GPUs that are asked for, beside `model.pt2`; the row
graphs as a program for PyTorch, rows.pt2, with which the engine runs there; and, for the engine in ONNX Runtime there,
graphs that move lines of its states and pages (`cuda_lines`).

The eager backend launches them through the driver, so that nothing is compiled where the bundle runs; norms, rotations
and the end of an iteration, which only the programs call, are among them. Triton has to be installed all the same.
No GPU is needed to build it, and none has run it: built, not executed. On the CPU, verification runs both programs.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from mythos_export.errors import TargetError, ToolMissing
from mythos_export.kernels import triton_build
from mythos_export.kernels.beside import plans_of
from mythos_export.kernels.launch_plan import LEAST_SM, PRECISIONS
from mythos_export.kernels.op import calls_of
from mythos_export.lower import Lowered
from mythos_export.progress import Progress
from mythos_export.targets.cuda_lines import write_lines
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.targets.tensorrt_build import parse_sms
from mythos_runtime.cuda_ops import KERNELS_FOLDER
from mythos_runtime.row_ports import LOOPS_FILE, ROWS
from mythos_runtime.spec import LoopSpec

DEFAULT_SMS = (80, 90)
_COMPUTED_IN = "fp32"  # what rounded weights are multiplied in


class CudaTarget:
    """Adds compiled kernels and the row graphs' program to the bundle."""

    name = "cuda"
    precisions = ("fp16", "fp32", "int8", "int4", "fp8")
    options = frozenset({"sm", "int8_cache"})

    def check(self, options: TargetOptions) -> None:
        lack = triton_build.missing()
        if lack:
            raise ToolMissing(f"--target cuda compiles Triton kernels, but {lack}")
        unknown = sorted(set(_sms(options)) - set(triton_build.ARCHITECTURES))
        if unknown:
            raise TargetError(
                f"--target cuda has no kernels for SM {', '.join(map(str, unknown))}, only for "
                f"{', '.join(map(str, triton_build.ARCHITECTURES))}; leave it out of --sm"
            )

        least = LEAST_SM.get(options.precision, 0)
        lower = [sm for sm in _sms(options) if sm < least]
        if lower:
            raise TargetError(
                f"--target cuda has {options.precision} kernels from SM {least} on, the first with instructions for "
                f"these numbers, and not for SM {', '.join(map(str, lower))}; leave it out of --sm, or take "
                "--precision int8"
            )

    def check_model(self, spec: LoopSpec, options: TargetOptions) -> None:
        """Every model is taken."""

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        # The step in a Loop is the CPU's: a GPU has no operators that write into their input.
        rows = [path for path in lowered.rows if path.suffix == ".onnx" and path.name != LOOPS_FILE]
        graphs = [lowered.path, *rows]
        manifest = triton_build.build_for(
            tuple(call for path in graphs for call in calls_of(ir.load(path))),
            options.precision if options.precision in PRECISIONS else _COMPUTED_IN,
            folder / KERNELS_FOLDER,
            architectures=_sms(options),
            others=plans_of(lowered.programs, lowered.spec),
            progress=lambda phase, part=None: progress(f"Triton: {phase}", part),
        )
        files = tuple(f"{KERNELS_FOLDER}/{name}" for name in triton_build.files_of(manifest))
        if lowered.write_row_program is not None:
            lowered.write_row_program(folder / ROWS)
            files = (*files, ROWS, *write_lines(lowered.spec, folder))
        details = {"architectures": manifest["architectures"], "kernels": len(manifest["kernels"])}
        return Built(self.name, files, details=details, tool_versions=manifest["tools"])


def _sms(options: TargetOptions) -> tuple[int, ...]:
    if options.sm:
        return parse_sms(options.sm)
    return tuple(max(sm, LEAST_SM.get(options.precision, 0)) for sm in DEFAULT_SMS)
