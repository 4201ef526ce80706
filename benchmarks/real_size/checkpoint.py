"""A checkpoint of random weights of any variant, one tensor in memory at a time: `write_checkpoint("1b", folder)`."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mythos_export.tensor_file import header, raw_bytes
from mythos_model import MythosConfig
from mythos_model.families.openmythos.names import reference_shapes


def write_checkpoint(variant: str, folder: Path) -> None:
    """`model.safetensors` in float32 and `config.json`: matrices N(0, 1/fan_in), norms and scales near 1."""
    config = MythosConfig.variant(variant)
    shapes, generator = reference_shapes(config), torch.Generator().manual_seed(0)
    head, _ = header({name: (torch.float32, shapes[name]) for name in sorted(shapes)})
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(head)
        for name in sorted(shapes):
            shape = shapes[name]
            noise = torch.randn(shape, generator=generator)
            if name.endswith(("norm.weight", "lora.scale.weight")):
                noise = 1 + 0.1 * noise
            elif name.endswith("halt.bias"):
                noise = torch.full(shape, -1.0)
            elif len(shape) < 2:
                noise = 0.1 * noise + (0.1 if name.endswith("injection.B") else 0.0)
            else:
                noise *= shape[-1] ** -0.5
            stream.write(raw_bytes(noise))
    (folder / "config.json").write_text(json.dumps(config.to_dict()) + "\n")
