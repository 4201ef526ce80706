"""Three small trained models that ship with the package, each a checkpoint folder with its model card.

from mythos_model import load_checkpoint
from mythos_model.pretrained import folder

checkpoint = load_checkpoint(folder("hops"))
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("hops", "text", "walk")


def folder(name: str) -> Path:
    """The folder of a model: model.safetensors, config.json, held_out.safetensors, training.json and README.md."""
    if name not in NAMES:
        raise ValueError(f"there is no model {name!r}; the models are {', '.join(NAMES)}")
    return Path(__file__).parent / name
