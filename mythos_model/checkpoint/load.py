"""The model in a checkpoint: its family and configuration, and a state dict that was held to it.

checkpoint = load_checkpoint("step_0000010.pt")
checkpoint.family.name, checkpoint.config, checkpoint.state["embed.weight"]
model = checkpoint.model(torch.float32)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mythos_model import families
from mythos_model.checkpoint.examine import together
from mythos_model.checkpoint.raw import Examined, RawCheckpoint, read_checkpoint
from mythos_model.checkpoint.rotary import check_table
from mythos_model.checkpoint.stored import Tensors
from mythos_model.checkpoint.texts import read_json_object
from mythos_model.errors import CheckpointError, ConfigError, some
from mythos_model.families.family import Family, front_of
from mythos_model.looped import LoopedModel
from mythos_model.weights import Sources

_MOST_COUNTED = 4096  # layers or experts that an error may list as missing


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        family: whose it is.
        config: the model's configuration, of the family's class.
        state: weights under the checkpoint's names, exactly `family.shapes(config)`, read when they are looked at.
        source: the file or folder.
        sha256: of the file; of a folder, over the names and hashes of the files read.
        format: "training checkpoint", "state dict", "safetensors" or "sharded safetensors".
        folder: where files that go with the weights are.
        notes: what was chosen among several, one sentence each, for the user.
        digests: the SHA-256 of each file that was read.
    """

    family: Family
    config: Any
    state: Mapping[str, Tensor]
    source: Path
    sha256: str
    format: str
    folder: Path
    notes: tuple[str, ...] = ()
    digests: Mapping[Path, str] = field(default_factory=dict)

    @property
    def sources(self) -> Sources:
        """The model's own tensors, made of the checkpoint's as they are asked for."""
        return self.family.model.sources(self.config, self.state)

    def model(self, dtype: torch.dtype | None = None) -> LoopedModel:
        """The model, in evaluation mode; `dtype` casts the weights."""
        return self.family.model.from_state(self.config, self.state, dtype)


def load_checkpoint(
    path: str | Path,
    config: Mapping[str, Any] | str | Path | Any | None = None,
    variant: str | None = None,
    *,
    default: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
    exit_rule: str | None = None,
    content: bool = True,
) -> Checkpoint:
    """Read a checkpoint of any known form and family, never running code from it.

    Args:
        path: any form that `read_checkpoint` takes; `weights_key` as there.
        config: a configuration, a mapping with some of its fields, or a JSON file of either. It wins over the file's
            own and over a `config.json` beside it; what is still open is inferred from the tensors.
        variant: a named variant instead of `config`.
        default: fields to start from where the checkpoint brings no configuration of its own.
        exit_rule: of families that have several, one that is not the usual one.
        content: whether the tensors' bytes are read, for their hash and for values that no model can use; else
            `sha256` is empty, and only the headers were looked at.

    Raises:
        CheckpointError: unreadable, or tensors missing, extra, misshapen or not finite (all listed in one error).
        ConfigError: the configuration does not hold together, or is of an unknown family.
    """
    if config is not None and variant is not None:
        raise ConfigError(f"both a configuration ({config}) and the variant {variant!r} are given; give one of them")
    raw = _without_wrapper(read_checkpoint(path, weights_key))
    if variant is not None:
        family, found = families.variant(variant)
    else:
        given = dict(raw.config or default or {})
        if isinstance(config, Mapping):
            given |= config
        elif isinstance(config, str | Path):
            given |= read_json_object(Path(config))
        family = next((known for known in families.FAMILIES if type(config) is known.configuration), None)  # type: ignore[assignment]
        if config is not None and family is None and not isinstance(config, Mapping | str | Path):
            raise ConfigError(f"{type(config).__name__} is the configuration of no family that is known here")
        if family is not None:
            found = config
        else:
            family = families.find(given, raw.shapes)
            found = family.read_config(given, raw.shapes)
    if exit_rule is not None:
        if not hasattr(found, "exit"):
            raise ConfigError(f"{family.name} has one exit rule, so {exit_rule!r} cannot be asked for")
        found = dataclasses.replace(found, exit=exit_rule)
    _check_counts(raw, family, found)
    expected = family.shapes(found)
    aliases = family.aliases(found)
    if content:
        _check_ties(raw, family, aliases)
    held = [name for name in raw.shapes if not any(fnmatchcase(name, pattern) for pattern in family.ignored)]
    names = [name for name in held if not (name in aliases and aliases[name] in raw.shapes)]
    known = {aliases.get(name, name): name for name in names}
    digests = _check(raw, known, expected, content)
    for pattern, (base, width) in family.rotary(found).items() if content else ():
        for table in [name for name in raw.shapes if fnmatchcase(name, pattern)]:
            check_table(raw.source, table, raw.tensors[table], base, width)
    state = Tensors({name: raw.tensors.stored[stored] for name, stored in known.items()})
    sha256 = together(digests) if digests else ""
    return Checkpoint(family, found, state, raw.source, sha256, raw.format, raw.folder, raw.notes, digests)


def _without_wrapper(raw: RawCheckpoint) -> RawCheckpoint:
    """The tensors under a family's own names, where something stands before all of them ("model.", "net.")."""
    for prefix in raw.prefixes:
        shorter = raw.without_prefix(prefix)
        if any(set(family.marks) <= set(shorter.shapes) for family in families.FAMILIES):
            return shorter
    return raw


def _check_counts(raw: RawCheckpoint, family: Family, config: Any) -> None:
    """No configuration asks for more layers than anybody could list, before they are listed."""
    for name in family.counts:
        if getattr(config, name) > max(len(raw.shapes), _MOST_COUNTED):
            raise CheckpointError(
                f"{raw.source} does not fit its configuration: {name} is {getattr(config, name)}, and it holds "
                f"{len(raw.shapes)} tensors"
            )


def _check_ties(raw: RawCheckpoint, family: Family, aliases: Mapping[str, str]) -> None:
    for alias, name in aliases.items():
        if {alias, name} <= set(raw.shapes) and not torch.equal(raw.tensors[alias], raw.tensors[name]):
            raise CheckpointError(f"{raw.source}: {alias} differs from {name}, but {family.name} ties them")


def _check(
    raw: RawCheckpoint, known: Mapping[str, str], expected: Mapping[str, tuple[int, ...]], content: bool
) -> Mapping[Path, str]:
    """One error with everything that is wrong with the tensors; else the files' hashes, where the content is read.
    `known` maps the family's names to those in the files."""
    problems = []
    missing, extra = sorted(set(expected) - set(known)), sorted(set(known) - set(expected))
    if missing:
        front = front_of(missing, extra)
        there = "" if front is None else f" (they are there behind {front!r}: --weights-key {front.rstrip('.')})"
        problems.append(f"{len(missing)} missing: {some(missing)}{there}")
    if extra:
        problems.append(f"{len(extra)} not expected: {some(extra)}")
    misshapen = [
        f"{name} is {list(raw.shapes[known[name]])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in known and raw.shapes[known[name]] != shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {some(misshapen)}")
    examined = raw.examine([known[name] for name in expected if name in known]) if content else Examined({}, ())
    problems += examined.problems
    if problems:
        raise CheckpointError(f"{raw.source} does not fit its configuration; tensors " + "; ".join(problems))
    return examined.digests
