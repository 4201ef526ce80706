"""Names of tensors as training wraps them, and as the model has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os.path import commonprefix

from mythos_model.errors import CheckpointError, shown

# What DistributedDataParallel, torch.compile, FSDP, activation checkpointing and Lightning put between the dots.
WRAPPERS = {
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}


def clean(names: Iterable[str]) -> dict[str, str]:
    """From clean names (no wrapper anywhere between the dots) to those of the file.

    Raises:
        CheckpointError: two tensors would have one name.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = ".".join(part for part in name.split(".") if part not in WRAPPERS) or name
        if plain in found:
            raise CheckpointError(
                f"the tensors {shown(found[plain])} and {shown(name)} would both be {shown(plain)}: they differ in "
                "wrappers of training only; leave one of them out"
            )
        found[plain] = name
    return found


def prefixes(names: Iterable[str]) -> tuple[str, ...]:
    """What may be taken off all names at their front, shortest first: "", "model.", "model.transformer." ...

    Names without a dot (counters and tables that training saves at the top) have no say. Which one is right depends on
    the names that a model has: Ouro's own begin with "model.".
    """
    common = commonprefix([name for name in names if "." in name])
    return ("", *(common[: at + 1] for at, letter in enumerate(common) if letter == "."))


def copies(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The front parts under which one model is more than once, such as "model." and "ema."; "" for names without one.

    Empty where there is one set of weights. Two sets are the same model where every name of one is in the other with
    the same shape, and they are at least half of it.
    """
    fronts: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        front, dot, rest = name.partition(".")
        if dot:
            fronts.setdefault(f"{front}.", {})[rest] = shape
    largest = max(fronts.values(), key=len, default={})
    if len(fronts) > 1 and all(_same_model(part, largest) for part in fronts.values()):
        return list(fronts)
    beside = {
        front: {name: shape for name, shape in shapes.items() if not name.startswith(front)}
        for front in list(fronts)[:64]
    }
    averaged = [front for front, rest in beside.items() if _same_model(fronts[front], rest)]
    return ["", *averaged] if averaged else []


def _same_model(a: Mapping[str, tuple[int, ...]], b: Mapping[str, tuple[int, ...]]) -> bool:
    few, many = sorted((a, b), key=len)
    return len(few) >= 4 and 2 * len(few) >= len(many) and all(many.get(name) == shape for name, shape in few.items())
