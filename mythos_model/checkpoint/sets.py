"""Which of the things in a file are the model's weights, and which are its configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mythos_model.checkpoint.names import clean, copies
from mythos_model.checkpoint.pickled import Opaque, PickledTensor
from mythos_model.checkpoint.stored import Stored
from mythos_model.checkpoint.texts import plain
from mythos_model.errors import CheckpointError, shown, some

# What training counts, the load of experts among it: no part of any model.
COUNTERS = ("n_averaged", "num_batches_tracked", "tokens_per_expert", "local_tokens_per_expert", "expert_load")
TOP = "."  # the weights that are under no key
_CONFIG_KEYS = ("model_config", "model_args", "cfg", "config")
_DEEPEST = 5


def weights_in(value: Any, path: Path) -> dict[str, Mapping[str, Any]]:
    """Every dictionary in a saved object that may be a set of weights, by the keys that lead to it.

    State dicts have dotted names; only where nothing has, a dictionary with other names counts.
    Optimizers are left out.

    Raises:
        CheckpointError: no weights are in it.
    """
    if isinstance(value, Opaque) and {"_parameters", "_modules"} <= set(value.fields):
        raise CheckpointError(
            f"{path} holds a whole module of class {shown(value.kind)}, which only its own code can read; save its "
            "state dict: torch.save(model.state_dict(), ...)"
        )
    found: dict[str, Mapping[str, Any]] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    seen: set[int] = set()
    while waiting:
        keys, node = waiting.pop(0)
        fields = _fields(node)
        if fields is None or id(fields) in seen or "param_groups" in fields or len(keys) > _DEEPEST:
            continue
        seen.add(id(fields))
        if any(isinstance(v, PickledTensor) and (v.problem or v.dtype.is_floating_point) for v in fields.values()):
            found[".".join(keys) or TOP] = fields
        waiting += [((*keys, key), v) for key, v in fields.items() if not key.lower().startswith("optim")]
    dotted = {key: fields for key, fields in found.items() if any("." in n for n in _tensors(fields))}
    if not found:
        kind = value.kind if isinstance(value, Opaque) else type(value).__name__
        raise CheckpointError(f"{path} holds no weights: a {shown(kind)} without a tensor of floating-point numbers")
    return dotted or found


def choose_set(sets: Collection[str], wanted: str | None, path: Path) -> tuple[str, str | None]:
    """The key of the set of weights that is meant, and what of `wanted` is still to be found in its names.

    Raises:
        CheckpointError: several could be.
    """
    for key in sorted(sets, key=len, reverse=True):
        if wanted is not None and (wanted == key or wanted.startswith(f"{key}.")):
            return key, wanted if key == TOP else wanted[len(key) + 1 :] or None
    if len(sets) > 1:
        raise CheckpointError(_several(path, sets, wanted))
    return next(iter(sets)), wanted


def choose_names(
    shapes: Mapping[str, tuple[int, ...]], wanted: str | None, path: Path
) -> tuple[dict[str, str], tuple[str, ...]]:
    """From the names of the model's tensors to those in the file, and the sets of weights that there were.

    Raises:
        CheckpointError: several sets are side by side and none was named, none is where `wanted` says, or two tensors
            would have one name.
    """
    names = clean(shapes)
    fronts = copies({name: shapes[stored] for name, stored in names.items()})
    keys = tuple(front.rstrip(".") or TOP for front in fronts)
    if wanted is None and fronts:
        raise CheckpointError(_several(path, keys, None))
    if wanted is None:
        return names, ()
    if wanted == TOP:
        others = tuple(front for front in fronts if front)
        return {name: stored for name, stored in names.items() if not (others and name.startswith(others))}, keys
    front = ".".join(clean([wanted])) + "."
    inside = {name.removeprefix(front): stored for name, stored in names.items() if name.startswith(front)}
    if not inside:
        raise CheckpointError(_several(path, keys, wanted))
    return inside, keys


def config_in(value: Any, path: Path) -> dict[str, Any] | None:
    """The configuration that a training script saved beside the weights, as plain values; None where it saved none.

    Raises:
        CheckpointError: two configurations contradict each other.
        ConfigError: it is nested so deep or holds so much that it is none.
    """
    fields = _fields(value) or {}
    found = {key: plain(config, path) for key in _CONFIG_KEYS if (config := _fields(fields.get(key)))}
    if {"cfg", "config"} <= set(found) and len(found) == 2 and found["cfg"] != found["config"]:
        raise CheckpointError(f"{path} holds two configurations, cfg and config, that differ; leave one of them out")
    return next(iter(found.values()), None)


def _several(path: Path, keys: Collection[str], wanted: str | None) -> str:
    there = some(f"{key} (those under no key)" if key == TOP else key for key in keys)
    if wanted is None:
        return f"{path} holds more than one set of weights; choose with --weights-key: {there}"
    listed = f"sets of weights are in it under: {there}" if keys else "it holds one set, so the option can be left out"
    return f"{path} has no weights under {shown(wanted)!r}; {listed}"


def _fields(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else value.fields or None if isinstance(value, Opaque) else None


def _tensors(fields: Mapping[str, Any]) -> list[str]:
    return [name for name, value in fields.items() if isinstance(value, (PickledTensor, Stored))]
