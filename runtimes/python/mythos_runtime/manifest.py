"""The bundle's manifest: what it says, how it is read, how it is written. The reader owns the format.

    >>> manifest = read_manifest("bundle")                  # hashes every listed file
    >>> manifest.target("onnx").state
    'verified'

`manifest.json` (format version 2) is one JSON object of at most 4 MiB with exactly these fields:

    format_version  2
    spec            what running the model needs, graphs and their ports included: `mythos_runtime.spec.LoopSpec`
    config          the hyper-parameters of its family, for people: no reader computes with them
    precision       fp32, fp16, bf16, int8, int4, int8a8, int4a8, fp8 or mixed: how the weights are stored, and whether
                    (a8) they are multiplied by int8
    formats         only with mixed: {group of matrices: int8 or int4}; the others are float32
    targets         [{name, state, files, details}]; state is "verified", "verified on a reduced twin" (the model is too
                    large for the whole), "not verified" (put off) or "built, not executed"; details are the target's
                    own, such as {sm, profiles}
    tool_versions   {tool: version}
    files           {relative path: {sha256, bytes}}, every file that the bundle needs, the manifest itself excepted
    tolerances      what parity was held to
    source          {name, sha256, format} of the checkpoint; sha256 is null where the weights came from no file
    operators       {operator: {implementation and why}}
    tokenizer       null or absent, or {kind, file, eos, ...}: see tokenizer_entry.py
    shards          absent, or {counts, graphs}, where the experts are in shards: see shards/entry.py
    links           absent, or {files, tensors}, where weights are in files outside of the bundle: see linked.py
    created         UTC time as 2026-01-01T00:00:00+00:00
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import MAX_JSON_BYTES, Fields, parse_json
from mythos_runtime.files import FileEntry, check_file, is_gone, locate, mode_of, path_problem, write_whole
from mythos_runtime.linked import Links, read_links
from mythos_runtime.shards.entry import ExpertShards, read_shards
from mythos_runtime.spec import LoopSpec
from mythos_runtime.spec_reader import read_spec
from mythos_runtime.staging import mend
from mythos_runtime.tokenizer_entry import TokenizerEntry, read_tokenizer

FORMAT_VERSION = 2
MANIFEST = "manifest.json"

SPARE = ("golden.safetensors", "model.pt2", "card.md", "README.md", "reports/")
"""Files, and folders of files, that may be missing from a bundle that lists them: nothing reads them in order to run it
(only the backend eager runs model.pt2). What is there is held to its entry all the same."""

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4", "int8a8", "int4a8", "fp8", "mixed")
MIXED, FORMATS = "mixed", ("int8", "int4")

VERIFIED = "verified"
TWIN_VERIFIED = "verified on a reduced twin"
NOT_VERIFIED = "not verified"
NOT_EXECUTED = "built, not executed"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\+00:00")


@dataclass(frozen=True)
class Target:
    """One form the model was compiled to, and how far that form was checked."""

    name: str
    state: str
    files: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """The checkpoint that the bundle was made from. `sha256` is None where there was no file (random weights)."""

    name: str
    sha256: str | None
    format: str


@dataclass(frozen=True)
class Manifest:
    """Everything that a bundle says about itself; see the module's docstring for the fields."""

    spec: LoopSpec
    config: dict[str, Any]
    precision: str
    targets: tuple[Target, ...]
    tool_versions: dict[str, str]
    files: dict[str, FileEntry]
    tolerances: dict[str, Any]
    source: Source
    operators: dict[str, Any]
    created: str
    tokenizer: TokenizerEntry | None = None
    shards: ExpertShards | None = None
    formats: dict[str, str] = field(default_factory=dict)
    links: Links | None = None
    format_version: int = FORMAT_VERSION
    missing: tuple[str, ...] = field(default=(), compare=False)  # what is SPARE and was not there; not part of the JSON

    def target(self, name: str) -> Target | None:
        """The target of that name, or None."""
        return next((target for target in self.targets if target.name == name), None)

    @property
    def doubt(self) -> str | None:
        """A sentence where nothing in the bundle was compared with its model; None where something was."""
        if not any(target.state == NOT_VERIFIED for target in self.targets):
            return None
        return (
            "this bundle is not verified: nothing in it was compared with its model (it was exported with --verify "
            "later); mythos verify BUNDLE --against CHECKPOINT does that"
        )

    def file_ending(self, suffix: str, prefer: str) -> str | None:
        """The listed file `prefer`, or the only other one that ends in `suffix`; None where there is no such file."""
        if prefer in self.files:
            return prefer
        found = [path for path in self.files if path.endswith(suffix)]
        return found[0] if len(found) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `parse_manifest` reads back to an equal manifest."""
        return {
            "format_version": self.format_version,
            "created": self.created,
            "precision": self.precision,
            **({"formats": self.formats} if self.precision == MIXED else {}),
            "spec": self.spec.to_json(),
            "config": self.config,
            "source": {"name": self.source.name, "sha256": self.source.sha256, "format": self.source.format},
            "targets": [
                {"name": target.name, "state": target.state, "files": list(target.files), "details": target.details}
                for target in self.targets
            ],
            "operators": self.operators,
            "tolerances": self.tolerances,
            "tokenizer": self.tokenizer and self.tokenizer.to_json(),
            "tool_versions": self.tool_versions,
            **({} if self.shards is None else {"shards": self.shards.to_json()}),
            **({} if self.links is None else {"links": self.links.to_json()}),
            "files": {path: {"sha256": entry.sha256, "bytes": entry.bytes} for path, entry in self.files.items()},
        }


def read_manifest(folder: str | Path, verify_hashes: bool = True) -> Manifest:
    """Read and check a bundle's manifest and the files it lists.

    Sizes and places of the files are always checked, their hashes only with `verify_hashes`; those of shards may be
    where the shards run, and are then checked there. What is SPARE and not there is among `missing`, not in `files`. A
    bundle that has no name because an export was killed while it replaced it gets its name back.

    Raises:
        BundleError: one sentence that names the field or file, what was found and what was expected.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    try:
        mend(folder)
        if not stat.S_ISDIR(mode := mode_of(folder)):
            what = "is a file" if mode else "does not exist"
            raise BundleError(f"{folder} {what}; expected the folder of a bundle, which holds a {MANIFEST}")
        if not stat.S_ISREG(mode_of(path)):
            raise BundleError(f"{folder} holds no {MANIFEST}, so it is not a bundle; make one with mythos-export")
        locate(folder, MANIFEST)  # no link that leaves the folder
        with open(path, "rb") as stream:
            text = stream.read(MAX_JSON_BYTES + 1)  # never more, however large the file is
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path}: {error}") from error
    if len(text) > MAX_JSON_BYTES:
        raise BundleError(f"{path} is larger than the {MAX_JSON_BYTES} bytes that a manifest may have")
    manifest = parse_manifest(text, str(path))
    missing = tuple(name for name in manifest.files if _is_spare(name) and is_gone(folder, name))
    there = {name: entry for name, entry in manifest.files.items() if name not in missing}
    manifest = replace(manifest, files=there, missing=missing)
    away = (
        set() if manifest.shards is None else {name for name in manifest.shards.apart() if not (folder / name).exists()}
    )
    listed = {name: entry for name, entry in manifest.files.items() if name not in away}
    for name, entry in listed.items():
        check_file(folder, name, entry, verify_hash=False)  # cheap, so all of them before the first hash
    if verify_hashes:
        for name, entry in listed.items():
            check_file(folder, name, entry, verify_hash=True)
    return manifest


def _is_spare(name: str) -> bool:
    return any(name.startswith(spare) if spare.endswith("/") else name == spare for spare in SPARE)


def write_manifest(folder: str | Path, manifest: Manifest) -> Path:
    """Write `manifest.json` in one step (no reader sees half of it) and return its path.

    Raises:
        BundleError: the manifest would not be read back equal, so it is not written.
    """
    path = Path(folder) / MANIFEST
    try:
        text = (json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise BundleError(f"the manifest cannot be written as JSON: {error}") from error
    if parse_manifest(text, str(path)) != manifest:
        raise BundleError(f"{path}: the manifest does not read back as it was; use lists, texts and numbers in it")
    write_whole(path, text)
    return path


def parse_manifest(text: bytes, where: str = MANIFEST) -> Manifest:
    """A manifest from its JSON text, without looking at any file. Raises BundleError."""
    top = Fields(parse_json(text, where), where)
    version = top.integer("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{where} has format version {version}, this runtime knows version {FORMAT_VERSION}: "
            + ("update mythos_runtime" if version > FORMAT_VERSION else "export the model again")
        )
    files = _files(top)
    manifest = Manifest(
        format_version=version,
        created=_time(top),
        precision=(precision := top.choice("precision", PRECISIONS)),
        formats=_formats(top, precision),
        spec=(spec := read_spec(top.inner("spec"))),
        config=top.mapping("config"),
        source=_source(top.inner("source")),
        targets=tuple(_target(item, files) for item in top.items("targets")),
        operators=top.mapping("operators"),
        tolerances=top.mapping("tolerances"),
        tokenizer=read_tokenizer(top, files),
        shards=read_shards(top, spec, files),
        links=read_links(top),
        tool_versions=_versions(top),
        files=files,
    )
    top.done()
    return manifest


def _time(top: Fields) -> str:
    text = top.text("created")
    if not _TIME.fullmatch(text):
        raise top.fail("created", "a UTC time as 2026-01-01T00:00:00+00:00", text)
    return text


def _source(fields: Fields) -> Source:
    source = Source(fields.text("name"), fields.optional_text("sha256"), fields.text("format"))
    if source.sha256 is not None and not _SHA256.fullmatch(source.sha256):
        raise fields.fail("sha256", "64 lower-case hexadecimal digits or null", source.sha256)
    fields.done()
    return source


def _files(top: Fields) -> dict[str, FileEntry]:
    listed = top.inner("files")
    files = {}
    for path in listed.names():
        problem = path_problem(path)
        if problem or path == MANIFEST:
            raise listed.fail(
                path, f"left out, as its path may not be listed ({problem or 'the manifest itself'})", path
            )
        entry = listed.inner(path)
        sha256 = entry.text("sha256")
        if not _SHA256.fullmatch(sha256):
            raise entry.fail("sha256", "64 lower-case hexadecimal digits", sha256)
        files[path] = FileEntry(sha256, entry.integer("bytes"))
        entry.done()
    return files


def _target(fields: Fields, files: dict[str, FileEntry]) -> Target:
    target = Target(fields.text("name"), fields.text("state"), fields.texts("files"), fields.mapping("details"))
    for path in target.files:
        if path not in files:
            raise fields.fail("files", "a list of paths that the field files has too", path)
    fields.done()
    return target


def _formats(top: Fields, precision: str) -> dict[str, str]:
    if precision != MIXED:
        return {}
    fields = top.inner("formats")
    return {group: fields.choice(group, FORMATS) for group in fields.names()}


def _versions(top: Fields) -> dict[str, str]:
    fields = top.inner("tool_versions")
    return {name: fields.text(name) for name in fields.names()}
