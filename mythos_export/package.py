"""A bundle: its folder, what it says about itself, and its files, each hashed once, while or when it is written."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from mythos_export.capture import Captured
from mythos_export.kernels import fallback
from mythos_export.kernels.op import OPERATORS, calls_of
from mythos_export.program_file import write_program
from mythos_export.targets.target import Built
from mythos_export.verify.golden import GOLDEN
from mythos_export.weights_file import WeightsFile
from mythos_model import Checkpoint
from mythos_runtime.files import FileEntry, describe
from mythos_runtime.linked import Links
from mythos_runtime.manifest import MANIFEST, NOT_EXECUTED, Manifest, Source, write_manifest
from mythos_runtime.manifest import Target as TargetEntry
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.shards.entry import ExpertShards
from mythos_runtime.spec import MODEL, LoopSpec
from mythos_runtime.tokenizer_entry import TokenizerEntry

PROGRAM = "model.pt2"
# What a bundle runs without, by the name that --parts has for it: its files, or folders of files.
PARTS = {"program": PROGRAM, "golden": GOLDEN, "reports": "reports/"}


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder, its manifest, which lists the files with their hashes, and what was built into it."""

    folder: Path
    manifest: Manifest
    built: tuple[Built, ...]

    def grown(self, **changes: Any) -> Bundle:
        """The bundle with the files that were written into its folder since, and with other fields of the manifest."""
        files = {**self.manifest.files, **_new_files(self.folder, self.manifest.files)}
        return replace(self, manifest=replace(self.manifest, files=dict(sorted(files.items())), **changes))

    def without(self, parts: Collection[str]) -> Bundle:
        """The bundle after these of its PARTS were removed."""
        gone = {name for name in self.manifest.files if any(name.startswith(PARTS[part]) for part in parts)}
        for name in gone:
            (self.folder / name).unlink()
        for folder in {(self.folder / name).parent for name in gone} - {self.folder}:
            folder.rmdir()
        files = {name: entry for name, entry in self.manifest.files.items() if name not in gone}
        return replace(self, manifest=replace(self.manifest, files=files))

    def finish(self) -> None:
        """Write the manifest, the last file of a bundle."""
        write_manifest(self.folder, self.manifest)


def package(
    folder: Path,
    checkpoint: Checkpoint,
    precision: str,
    captured: Captured,
    weights: WeightsFile,
    built: tuple[Built, ...],
    tokenizer: TokenizerEntry | None = None,
    shards: ExpertShards | None = None,
    links: Links | None = None,
    formats: Mapping[str, str] | None = None,
) -> Bundle:
    """The bundle of what was built in `folder`, with the captured program, unless weights are in files outside of it.
    Nothing in it has been executed yet."""
    if links is None:
        write_program(captured.program, weights, folder / PROGRAM)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    for target in built:
        versions |= target.tool_versions
    manifest = Manifest(
        spec=captured.spec,
        config=checkpoint.config.to_dict(),
        precision=precision,
        formats=dict(formats or {}),
        targets=tuple(TargetEntry(t.name, NOT_EXECUTED, tuple(t.files), dict(t.details)) for t in built),
        tool_versions=versions,
        files={weights.path.name: weights.entry},
        tolerances={},
        source=Source(checkpoint.source.name, checkpoint.sha256, checkpoint.format),
        operators=_operators(folder, captured.spec, shards, built),
        tokenizer=tokenizer,
        shards=shards,
        links=links,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Bundle(folder, manifest, built).grown()


def _new_files(folder: Path, known: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """What is in a folder and is not known yet, written to the disk for certain, and hashed."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and name not in known:
            with path.open("rb") as stream:
                os.fsync(stream.fileno())  # where a file system finds out only now that it is full
            entries[name] = describe(path)
    return entries


def _operators(
    folder: Path, spec: LoopSpec, shards: ExpertShards | None, built: tuple[Built, ...]
) -> dict[str, dict[str, Any]]:
    """The manifest's entry: of all graphs, what computes each operator in each runner."""
    files = [f"{name}.onnx" for name in spec.graphs] + ([] if shards is None else shards.files())
    calls = {name: calls_of(ir.load(folder / name)) for name in files}
    given = {fallback.TENSORRT: (MODEL,), fallback.TENSORRT_ROWS: GRAPHS}
    engines = {
        runner: fallback.Given(
            frozenset(call.label for name in given[runner] for call in calls[f"{name}.onnx"]), implementation
        )
        for target in built
        for runner, implementation in target.operators.items()
    }
    every = sorted((call for each in calls.values() for call in each), key=lambda call: call.label)
    lacks = {call.label: OPERATORS[call.operator].lacks(call.format, call.packed) for call in every}
    return fallback.record(lacks, engines)
