"""Is the artifact the same function? Every stage is run on the golden cases and held to the eager model's answers.

The cases and answers lie in the bundle (`golden.safetensors`), so that a bundle can be checked anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

from mythos_export.cases import NEAR_TIE, Case, relative_error
from mythos_export.errors import ParityError
from mythos_runtime.config import RuntimeConfig
from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import Manifest
from mythos_runtime.ort import OrtSession, find_op_library
from mythos_runtime.session import OpLibrary, Options, Session, open_session

GOLDEN = "golden.safetensors"
# A stage may err by this factor times what the eager model itself errs against float64, and no less than the floor:
# other kernels add in another order.
FACTOR = 8.0
FLOOR = {"fp32": 2e-6, "fp16": 2e-3, "bf16": 2e-2}
# The most that near ties may take out of sight before a check counts as none.
MOST_UNSEEN = 0.5

# Stage: the runtime's backend that runs it, and the operators' library that it is given.
STAGES: dict[str, tuple[str, OpLibrary]] = {
    "program": ("eager", None),
    "onnx": ("onnxruntime", None),  # the function bodies, which every ONNX runtime can run
    "onnx, CPU kernels": ("onnxruntime", "auto"),
}
# Stage: a graph made for a compiler that cannot run here. It is still ONNX, so ONNX Runtime runs the very file that the
# compiler was given; what stays unchecked is the compiler.
GRAPH_STAGES = {"tensorrt graph": "model.tensorrt.onnx"}


@dataclass(frozen=True)
class CaseResult:
    """One case on one stage. `problem` is None where it passed; errors are relative to the largest value."""

    stage: str
    case: str
    logits_error: float
    cache_error: float
    positions: int
    compared: int
    loops: int
    problem: str | None


@dataclass(frozen=True)
class Parity:
    """What was compared, and how it went."""

    precision: str
    tolerance: float
    near_tie: float
    results: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        return all(result.problem is None for result in self.results)

    @property
    def stages(self) -> list[str]:
        return list(dict.fromkeys(result.stage for result in self.results))

    def worst(self, stage: str) -> CaseResult:
        """The failed case of a stage, or else the one with the largest error."""
        return max(
            (result for result in self.results if result.stage == stage),
            key=lambda result: (result.problem is not None, result.logits_error),
        )

    def to_json(self) -> dict[str, object]:
        return {
            "verdict": "pass" if self.passed else "fail",
            "precision": self.precision,
            "tolerance": self.tolerance,
            "near_tie": self.near_tie,
            "stages": [
                {
                    "name": stage,
                    "state": "pass" if all(r.problem is None for r in self.results if r.stage == stage) else "fail",
                    "worst_case": self.worst(stage).case,
                    "error": max(r.logits_error for r in self.results if r.stage == stage),
                }
                for stage in self.stages
            ],
            "cases": [asdict(result) for result in self.results],
        }

    def raise_unless_passed(self) -> None:
        """ParityError naming the first stage and case that failed, with its numbers."""
        failed = [result for result in self.results if result.problem is not None]
        if failed:
            first = failed[0]
            raise ParityError(
                f"stage {first.stage} does not compute what the eager model computes: case '{first.case}': "
                f"{first.problem} ({len(failed)} of {len(self.results)} comparisons failed)"
            )


def tolerance_of(cases: Sequence[Case], precision: str) -> float:
    """The relative error allowed: what eager errs against float64 at this precision, times FACTOR."""
    return max(FLOOR[precision], FACTOR * max(case.exact_error for case in cases))


def save_golden(cases: Sequence[Case], path: Path, tolerance: float) -> None:
    """Write inputs, answers and clean masks as `{index}.{in|out}.{port}` and `{index}.clean`."""
    tensors: dict[str, torch.Tensor] = {}
    for index, case in enumerate(cases):
        for side, ports in (("in", case.inputs), ("out", case.outputs)):
            tensors |= {f"{index}.{side}.{name}": tensor.contiguous() for name, tensor in ports.items()}
        tensors[f"{index}.clean"] = case.clean.contiguous()
    names = json.dumps([case.name for case in cases])
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()}, path, {"cases": names, "tolerance": repr(tolerance)}
    )


def load_golden(path: Path) -> tuple[list[Case], float]:
    """The cases of a bundle, and the tolerance they were written with."""
    try:
        tensors = load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
        names, tolerance = json.loads(metadata["cases"]), float(metadata["tolerance"])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{path} holds no golden cases ({error}); export the model again") from error
    cases = []
    for index, name in enumerate(names):
        ports = {
            side: {
                key.split(".", 2)[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{index}.{side}.")
            }
            for side in ("in", "out")
        }
        cases.append(Case(name, ports["in"], ports["out"], tensors[f"{index}.clean"], 0.0))
    return cases, tolerance


def verify_bundle(
    folder: Path, manifest: Manifest, progress: Callable[[str], None] = lambda stage: None, threads: int | None = None
) -> Parity:
    """Run every stage of a bundle that this machine can run on the bundle's golden cases."""
    cases, tolerance = load_golden(folder / GOLDEN)
    config = RuntimeConfig.from_manifest(manifest)
    results: list[CaseResult] = []
    for stage, (backend, library) in STAGES.items():
        if library == "auto" and find_op_library() is None:
            continue
        progress(f"{stage} ({backend})")
        provider = "cpu" if backend == "eager" else "auto"  # the program is compared, not a GPU's kernels
        session = open_session(folder, manifest, config, backend, Options(threads, provider, library))
        results += [compare(stage, session, case, tolerance) for case in cases]
    for stage, graph in GRAPH_STAGES.items():
        if graph in manifest.files:
            progress(f"{stage} (onnxruntime)")
            # Without the CPU kernels: with --plugins operators are nodes there, and their bodies are to be compared.
            session = OrtSession(folder / graph, config, Options(threads=threads, op_library=None))
            results += [compare(stage, session, case, tolerance) for case in cases]
    real = sum(result.positions for result in results)
    seen = sum(result.compared for result in results)
    if seen < (1 - MOST_UNSEEN) * real:
        raise ParityError(
            f"only {seen} of {real} positions could be compared, the others hang on decisions nearer to a tie than "
            f"{manifest.precision} can tell apart; export with --precision fp32 to check this model"
        )
    return Parity(manifest.precision, tolerance, NEAR_TIE[manifest.precision], tuple(results))


def compare(stage: str, session: Session, case: Case, tolerance: float) -> CaseResult:
    """Run one case and judge it: logits and cache entries within tolerance, depth and loops equal."""
    found = session.run({name: _numpy(tensor) for name, tensor in case.inputs.items()})
    expected = {name: _numpy(tensor) for name, tensor in case.outputs.items()}
    clean, real = case.clean.numpy(), case.inputs["positions"].numpy() >= 0
    logits = relative_error(found["logits"], expected["logits"], clean)
    cache = max(relative_error(found[name], expected[name], clean) for name in ("new_layers", "new_loop"))
    loops, problem = int(found["loops"]), None
    turned = np.argwhere((found["depth"] != expected["depth"]) & clean)
    if turned.size:
        row, token = turned[0]
        depths = f"{found['depth'][row, token]} loops, eager {expected['depth'][row, token]}"
        problem = f"depth differs at {len(turned)} positions, first at row {row}, token {token}: {depths}"
    elif (clean == real).all() and loops != int(expected["loops"]):
        problem = f"ran {loops} loops, eager {int(expected['loops'])}"
    elif not logits <= tolerance:  # also true for NaN
        problem = f"logits differ by {logits:.2e} of their scale, allowed {tolerance:.2e}"
    elif not cache <= 4 * tolerance:  # entries of single layers have a smaller scale than the sum they feed
        problem = f"cache entries differ by {cache:.2e} of their scale, allowed {4 * tolerance:.2e}"
    if problem is None and not (math.isfinite(logits) and math.isfinite(cache)):
        problem = "the result holds NaN or infinite values"
    return CaseResult(stage, case.name, logits, cache, int(real.sum()), int(clean.sum()), loops, problem)


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.contiguous().numpy()
