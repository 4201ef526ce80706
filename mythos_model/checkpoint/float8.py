"""Weights in 8 bit floating point: exact in a wider dtype by themselves, meaningless without their scales."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mythos_model.checkpoint.stored import FLOAT8, READ_AS, Stored
from mythos_model.errors import CheckpointError, shown


def float8_notes(path: Path, tensors: Mapping[str, Stored]) -> list[str]:
    """A sentence on what 8 bit floats are read as, where there are any.

    Raises:
        CheckpointError: they have scales (a tensor of their module that is called so).
    """
    names = [name for name, tensor in tensors.items() if tensor.dtype in FLOAT8]
    scale = next(_scales(names, tensors), None)
    if scale:
        raise CheckpointError(
            f"{path}: {shown(scale[0])} is in 8 bit floating point with a scale, {shown(scale[1])}; give the "
            "checkpoint in float32, bfloat16 or float16 that it was made from"
        )
    dtypes = sorted({str(tensors[name].dtype).removeprefix("torch.") for name in names})
    wide = str(READ_AS).removeprefix("torch.")
    return (
        [f"{len(names)} tensors of {', '.join(dtypes)} are read as {wide}, which holds each of their values"]
        if names
        else []
    )


def _scales(names: Iterable[str], tensors: Mapping[str, Stored]) -> Iterator[tuple[str, str]]:
    """Pairs of a tensor and its scale: `a.weight` and `a.weight_scale`, `a.scale`, `a.scale_weight` ..."""
    scales = [name for name in tensors if "scale" in name.rpartition(".")[2]]
    for name in names:
        module, _, last = name.rpartition(".")
        for scale in scales:
            owner, _, word = scale.rpartition(".")
            own = owner == name or (owner == module and (last in ("weight", "bias") or word.startswith(last)))
            if own and scale != name:
                yield name, scale
