"""The model in a checkpoint: its configuration, and a reference-named state dict that was checked against it.

checkpoint = load_checkpoint("step_0000010.pt")
checkpoint.config, checkpoint.state["embed.weight"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mythos_model.checkpoint.raw import RawCheckpoint, read_checkpoint, read_json_object, some
from mythos_model.config import MythosConfig
from mythos_model.errors import CheckpointError
from mythos_model.names import infer_config, reference_shapes

ROTARY_TABLES = ("freqs_cis", "freqs_cis_mla")  # complex tables of the reference: recomputed, never loaded
_FOREIGN_FIELDS = {"architectures", "model_type", "torch_dtype", "dtype", "transformers_version"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked.

    Attributes:
        config: the model's configuration.
        state: weights under the reference's names, exactly `reference_shapes(config)`.
        source: the file or folder.
        sha256: of the file; of a folder, over the names and hashes of the files read.
        format: "training checkpoint", "state dict", "safetensors" or "sharded safetensors".
        notes: what was chosen among several, one sentence each, for the user.
    """

    config: MythosConfig
    state: dict[str, Tensor]
    source: Path
    sha256: str
    format: str
    notes: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    config: MythosConfig | Mapping[str, Any] | str | Path | None = None,
    variant: str | None = None,
    *,
    default: Mapping[str, Any] | None = None,
    weights_key: str | None = None,
) -> Checkpoint:
    """Read a checkpoint of any known form, never running code from it.

    Args:
        path: any form that `read_checkpoint` takes; `weights_key` as there.
        config: a configuration, a mapping with some of its fields, or a JSON file of either. It wins over the file's
            own and over a `config.json` beside it; what is still open is inferred from the tensors.
        variant: a named variant instead of `config`.
        default: fields to start from where the checkpoint brings no configuration of its own.

    Raises:
        CheckpointError: unreadable, or tensors missing, extra, misshapen or not finite (all listed in one error).
        ConfigError: the configuration does not hold together.
    """
    raw = read_checkpoint(path, weights_key)
    given = _own_fields(raw.config or default or {})
    if variant is not None:
        given = MythosConfig.variant(variant).to_dict()
    elif isinstance(config, MythosConfig):
        given = config.to_dict()
    elif isinstance(config, Mapping):
        given |= dict(config)
    elif config is not None:
        given |= _own_fields(read_json_object(Path(config)))
    complete = set(MythosConfig.__dataclass_fields__) <= set(given)
    found = MythosConfig.from_dict(given) if complete else infer_config(raw.shapes, given)
    expected = reference_shapes(found)
    names = [name for name in raw.shapes if name not in (*ROTARY_TABLES, "head.weight")]
    _check_tie(raw)
    sha256 = _check(raw, names, expected)
    return Checkpoint(found, {name: raw.tensors[name] for name in names}, raw.source, sha256, raw.format, raw.notes)


def _own_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _FOREIGN_FIELDS and not name.startswith("_")}


def _check_tie(raw: RawCheckpoint) -> None:
    if {"head.weight", "embed.weight"} <= set(raw.shapes) and not torch.equal(
        raw.tensors["head.weight"], raw.tensors["embed.weight"]
    ):
        raise CheckpointError(f"{raw.source}: head.weight differs from embed.weight, but this architecture ties them")


def _check(raw: RawCheckpoint, names: list[str], expected: Mapping[str, tuple[int, ...]]) -> str:
    """One error with everything that is wrong with the tensors; else the files' hash."""
    problems = []
    missing, extra = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
    if missing:
        problems.append(f"{len(missing)} missing: {some(missing)}")
    if extra:
        problems.append(f"{len(extra)} not expected: {some(extra)}")
    misshapen = [
        f"{name} is {list(raw.shapes[name])}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in raw.shapes and raw.shapes[name] != shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} misshapen: {some(misshapen)}")
    examined = raw.examine(expected)
    problems += examined.problems
    if problems:
        raise CheckpointError(f"{raw.source} does not fit its configuration; tensors " + "; ".join(problems))
    return examined.sha256
