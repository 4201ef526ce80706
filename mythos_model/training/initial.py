"""Starting weights that suit a small model."""

from __future__ import annotations

import torch

from mythos_model.families.openmythos import MythosModel


@torch.no_grad()
def calm_start(model: MythosModel, seed: int, halt_bias: float) -> None:
    """Random matrices, everything else neutral: norms 1, no LoRA yet, halting by its bias alone.

    What a block adds to its input is halved, so that ten loops of it do not drown what they started from.
    """
    model.reset_parameters(seed, halt_bias)
    for name, parameter in model.named_parameters():
        if name.endswith(("norm.weight", "lora.scale.weight")):
            parameter.fill_(1.0)
        elif name.endswith(("attn.wo.weight", "ffn.down.weight", "ffn.routed_down", "ffn.shared_down")):
            parameter.mul_(0.5)
        elif name.endswith(("lora.B", "log_A", "log_dt", "router_bias", "halt.weight")):
            parameter.zero_()
        elif name.endswith("injection.B"):
            parameter.fill_(0.1)
