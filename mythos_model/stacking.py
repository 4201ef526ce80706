"""From the reference's one tensor per expert to stacked experts, and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mythos_model.config import MythosConfig

FFN = "recurrent.block.ffn."


def stack_experts(config: MythosConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reference names -> MythosModel's: routed experts stacked on a first axis, shared ones side by side."""
    stacked = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith((f"{FFN}routed_experts.", f"{FFN}shared_experts."))
    }

    def experts(kind: str, count: int, projection: str) -> list[Tensor]:
        return [state[f"{FFN}{kind}_experts.{j}.{projection}.weight"] for j in range(count)]

    routed = {projection: experts("routed", config.n_experts, projection) for projection in ("gate", "up", "down")}
    gate_up = [torch.cat(pair) for pair in zip(routed["gate"], routed["up"], strict=True)]
    stacked[f"{FFN}routed_gate_up"] = torch.stack(gate_up)  # [E, 2F, D]
    stacked[f"{FFN}routed_down"] = torch.stack(routed["down"])  # [E, D, F]

    like = stacked["embed.weight"]
    shared = config.n_shared_experts
    gate_up = experts("shared", shared, "gate") + experts("shared", shared, "up")
    down = experts("shared", shared, "down")
    stacked[f"{FFN}shared_gate_up"] = torch.cat(gate_up) if gate_up else like.new_empty(0, config.dim)  # [2Fs, D]
    stacked[f"{FFN}shared_down"] = torch.cat(down, 1) if down else like.new_empty(config.dim, 0)  # [D, Fs]
    return stacked


def unstack_experts(config: MythosConfig, stacked: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """MythosModel's names -> the reference's; tensors are views where they can be."""
    names = ("routed_gate_up", "routed_down", "shared_gate_up", "shared_down")
    routed_gate_up, routed_down, shared_gate_up, shared_down = (stacked[FFN + name] for name in names)
    state = {name: tensor for name, tensor in stacked.items() if name.removeprefix(FFN) not in names}

    def put(kind: str, expert: int, gate: Tensor, up: Tensor, down: Tensor) -> None:
        for projection, tensor in (("gate", gate), ("up", up), ("down", down)):
            state[f"{FFN}{kind}_experts.{expert}.{projection}.weight"] = tensor

    for j in range(config.n_experts):
        gate, up = routed_gate_up[j].chunk(2)
        put("routed", j, gate, up, routed_down[j])
    if config.n_shared_experts:
        parts = shared_gate_up.chunk(2 * config.n_shared_experts)
        downs = shared_down.chunk(config.n_shared_experts, 1)
        for j, down in enumerate(downs):
            put("shared", j, parts[j], parts[config.n_shared_experts + j], down)
    return state
