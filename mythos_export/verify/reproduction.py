"""A failure made small, saved, and replayed.

A reproduction is a folder that stands alone, built like a bundle: the one artifact with its weights, the inputs cut
down to one row, its tokens up to the wrong one and the iterations up to the wrong one, and what should have come out.

    mythos verify --repro FOLDER
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mythos_export.errors import ExportError, PackageError, ParityError
from mythos_export.linked import absolute
from mythos_export.verify.cases import Case
from mythos_export.verify.compare import Problem, compare
from mythos_export.verify.golden import GOLDEN, Golden, load_golden, save_golden
from mythos_export.verify.locate import locate
from mythos_export.verify.results import OUTPUTS, Failure
from mythos_export.verify.stages import STAGES, Bundle, Stage
from mythos_export.verify.trace import Trace, names
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError, RuntimeBundleError
from mythos_runtime.files import describe
from mythos_runtime.manifest import read_manifest, write_manifest
from mythos_runtime.ports import Port

ABOUT = "reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    """A failure with its case, cut to what shows it, and the operator at which it begins."""

    stage: type[Stage]
    golden: Golden
    """One case, and the tolerances."""
    problem: Problem
    operator: str | None
    note: str | None = None
    """Why the operator could not be looked for."""

    def save(self, parent: Path, bundle: Bundle) -> Path:
        """Write the folder under `parent`, over an older reproduction of the same stage.

        Raises:
            PackageError: something else is there.
        """
        folder = parent / re.sub(r"\W+", "-", self.stage.name)
        if folder.exists() and not (folder / ABOUT).is_file():
            raise PackageError(f"{folder} is in the way: the reproduction of a failure is to be saved there")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in self.stage.files(bundle):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(bundle.folder / name, folder / name)  # onnx refuses weights with several hard links
        save_golden(self.golden, folder / GOLDEN)
        (folder / ABOUT).write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")
        files = [path for path in folder.rglob("*") if path.is_file()]
        listed = {path.relative_to(folder).as_posix(): describe(path) for path in files}
        targets = tuple(
            replace(target, files=tuple(name for name in target.files if name in listed))
            for target in bundle.manifest.targets
        )
        links = None if bundle.manifest.links is None else absolute(bundle.manifest.links, bundle.folder)
        write_manifest(folder, replace(bundle.manifest, files=listed, targets=targets, tokenizer=None, links=links))
        return folder

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage.name,
            "case": self.golden.cases[0].name,
            "tensor": self.problem.tensor,
            "iteration": self.problem.iteration,
            "operator": self.operator,
            "found_then": self.problem.text,
        }


@dataclass(frozen=True)
class Replayed:
    """What a reproduction shows now; `problem` is None where it no longer fails."""

    about: dict[str, Any]
    problem: Problem | None

    def to_json(self) -> dict[str, Any]:
        now = None if self.problem is None else self.problem.text
        return {"verdict": "pass" if self.problem is None else "fail", **self.about, "found_now": now}


def reproduce(stage: Stage, bundle: Bundle, golden: Golden, case: Case, failure: Failure) -> Reproduction:
    """Cut the case down, once, if it still fails then; and find the operator."""
    problem = failure.problem
    if problem.tensor == OUTPUTS:  # it cannot even be run: there is nothing to compare
        return Reproduction(
            type(stage), replace(golden, cases=(case,), eager=(), text=None, boundaries={}), problem, None
        )
    small = _cut(case, problem)
    shown = _shows(stage, golden, small, problem.tensor)
    if shown is None or shown.iteration != problem.iteration:
        small, shown = case, problem
    iteration = None if problem.iteration is None else problem.iteration - 1
    allowed = golden.of(case)
    limit = 2 * max(allowed.of(name, iteration or 0) for name in allowed.tensors)
    operator, note = None, None
    try:
        operator = locate(stage, bundle, small, problem.tensor, iteration, limit)
    except (ExportError, RuntimeBundleError) as error:  # the failure itself matters more
        note = f"the operator could not be looked for: {error!r}"
    return Reproduction(type(stage), _only(golden, small), shown, operator, note)


def _only(golden: Golden, case: Case) -> Golden:
    return replace(golden, cases=(case,), eager=(), text=None, boundaries={}, tie=None, weights={})


def replay(folder: Path, threads: int | None = None) -> Replayed:
    """Run a saved reproduction again.

    Raises:
        BundleError: the folder holds none, or was changed.
        BackendMissing: this machine cannot run that stage.
    """
    manifest = read_manifest(folder)
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        kind = next(kind for kind in STAGES if kind.name == about["stage"])
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise BundleError(f"{folder} holds no reproduction of a failure ({ABOUT}: {error!r})") from error
    bundle = Bundle(folder, manifest, threads)
    lacking = kind.lacking(bundle)
    if lacking is not None:
        raise BackendMissing(f"stage {kind.name} cannot be run here: {lacking}")
    golden = load_golden(folder / GOLDEN, manifest.spec)
    stage = kind.open(bundle)
    try:
        return Replayed(about, _shows(stage, golden, golden.cases[0], about["tensor"]))
    finally:
        stage.close()


def _shows(stage: Stage, golden: Golden, case: Case, tensor: str) -> Problem | None:
    """The case's first problem of that kind. A case that was cut has no truth for what comes after the cut."""
    try:
        answer = stage.answer(case.inputs)
    except (BackendFailed, ParityError) as error:
        return Problem(OUTPUTS, None, str(error))
    problems = compare(case, answer, golden.of(case)).problems
    return next((problem for problem in problems if problem.tensor == tensor), None)


def _cut(case: Case, problem: Problem) -> Case:
    """One row up to the wrong token and, inside the loop, the iterations up to the wrong one: all are causal."""
    spec, traced = case.spec, names(case.spec)
    around = {spec.ports.of("new", group.name).name for group in spec.caches if not group.per_loop}
    # Tensors whose truth does not depend on the other rows and the later tokens.
    if problem.position is None or problem.tensor not in {*traced, *around, spec.ports.of("logits").name}:
        return case
    row, token = problem.position
    parts = {"B": slice(row, row + 1), "T": slice(0, token + 1)}

    def part(arrays: Mapping[str, np.ndarray], ports: Iterable[Port]) -> dict[str, np.ndarray]:
        cut = {p.name: arrays[p.name][tuple(parts.get(str(dim), slice(None)) for dim in p.dims)] for p in ports}
        return {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in cut.items()}

    inputs, iterations = part(case.inputs, spec.ports.inputs), len(case.trace)
    if problem.iteration is not None:
        iterations = problem.iteration
        inputs[spec.ports.of("max_loops").name] = np.array(iterations)
        inputs[spec.ports.of("early_exit").name] = np.array(False)
    inside = (slice(0, iterations), parts["B"], parts["T"])
    return Case(
        spec,
        case.name,
        inputs,
        part(case.outputs, spec.ports.outputs),
        Trace({name: array[inside] for name, array in case.trace.arrays.items()}),
        {name: array[inside] for name, array in case.margins.items()},
    )
