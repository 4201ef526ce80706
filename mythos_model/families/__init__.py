"""The families of looped models. A new one is a folder beside the others and a line in `FAMILIES`.

>>> find({"model_type": "ouro"}, names).name
'ouro'
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import SequenceMatcher
from reprlib import repr as brief
from typing import Any

from mythos_model.errors import CheckpointError, ConfigError
from mythos_model.families import huginn, nanbeige, openmythos, ouro, parcae
from mythos_model.families.family import Family, front_of

FAMILIES: list[Family] = [
    openmythos.FAMILY,
    ouro.FAMILY,
    huginn.FAMILY,
    parcae.FAMILY,
    nanbeige.FAMILY,
]

_SIMILAR = 0.7


def register(family: Family) -> None:
    """Make a family known that lives outside of this package. A name that is taken is replaced."""
    FAMILIES[:] = [known for known in FAMILIES if known.name != family.name] + [family]


def find(config: Mapping[str, Any], names: Collection[str]) -> Family:
    """The family of a checkpoint: the one that its configuration names, else the one whose tensors it holds.

    Raises:
        ConfigError: the configuration names a family that is not known.
        CheckpointError: nothing tells.
    """
    for family in FAMILIES:
        if family.claims(config):
            return family
    alike = [family for family in FAMILIES if set(family.marks) <= set(names)]
    named = config.get("model_type", config.get("_class_name"))
    if named is not None:
        raise ConfigError(
            f"the configuration says that the model is {brief(named)}, which is no family that is known here "
            f"({_listed()}){_closest(names)}; CONTRIBUTING.md says how to add one"
        )
    told = [family for family in alike if family.distinct]
    if len(told) != 1:
        found = " and of ".join(family.name for family in told or alike) or "none"
        raise CheckpointError(
            f"nothing tells which family of looped models this is: config.json has no model_type, and the tensors are "
            f"named like those of {found} ({_listed()}){'' if alike else _closest(names)}; CONTRIBUTING.md says how to "
            "add one"
        )
    return told[0]


def _closest(names: Collection[str]) -> str:
    """Which family's tensors have the most similar names, and what stands before them, for an error; nothing where
    none are similar."""
    for family in FAMILIES:
        front = front_of(family.marks, names)
        if front is not None:
            key = front.rstrip(".")
            return (
                f"; behind {brief(front)} they are named like those of {family.name}: --weights-key {key} takes these"
            )
    plain = {_unnumbered(name) for name in names}
    found = [(_likeness(family, plain), family) for family in FAMILIES]
    likeness, family = max(found, key=lambda each: (each[0], each[1].distinct))
    if likeness == 1:
        return f"; its tensors are named like those of {family.name}"
    return f"; the tensors of {family.name} have the most similar names" if likeness > _SIMILAR else ""


def _likeness(family: Family, plain: Collection[str]) -> float:
    """From 0 to 1: how alike the names of its marks and the most similar of these are."""
    marks = {_unnumbered(mark) for mark in family.marks}
    best = [max((SequenceMatcher(None, mark, name).ratio() for name in plain), default=0) for mark in marks]
    return sum(best) / len(best)


def _unnumbered(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def variant(name: str) -> tuple[Family, Any]:
    """A named configuration of any family, and whose it is. Raises ConfigError."""
    for family in FAMILIES:
        if name.lower() in family.variants:
            return family, family.variants[name.lower()]
    known = [name for family in FAMILIES for name in family.variants]
    raise ConfigError(f"there is no variant {name!r}; the variants are {', '.join(known)}")


def _listed() -> str:
    return "known are " + ", ".join(family.name for family in FAMILIES)
