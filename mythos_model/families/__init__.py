"""The families of looped models. A new one is a folder beside the others and a line in `FAMILIES`.

>>> find({"model_type": "ouro"}, names).name
'ouro'
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from reprlib import repr as brief
from typing import Any

from mythos_model.errors import CheckpointError, ConfigError
from mythos_model.families import huginn, openmythos, ouro, parcae
from mythos_model.families.family import Family

FAMILIES: list[Family] = [
    openmythos.FAMILY,
    ouro.FAMILY,
    huginn.FAMILY,
    parcae.FAMILY,
]


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
        closest = f"; its tensors are named like those of {alike[0].name}" if alike else ""
        raise ConfigError(
            f"the configuration says that the model is {brief(named)}, which is no family that is known here "
            f"({_listed()}){closest}; CONTRIBUTING.md says how to add one"
        )
    if len(alike) != 1:
        raise CheckpointError(
            f"nothing tells which family of looped models this is: config.json has no model_type, and the tensors are "
            f"named like those of {' and of '.join(family.name for family in alike) or 'none'} ({_listed()})"
        )
    return alike[0]


def variant(name: str) -> tuple[Family, Any]:
    """A named configuration of any family, and whose it is. Raises ConfigError."""
    for family in FAMILIES:
        if name.lower() in family.variants:
            return family, family.variants[name.lower()]
    known = [name for family in FAMILIES for name in family.variants]
    raise ConfigError(f"there is no variant {name!r}; the variants are {', '.join(known)}")


def _listed() -> str:
    return "known are " + ", ".join(family.name for family in FAMILIES)
