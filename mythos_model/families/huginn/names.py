"""Tensor names of Huginn checkpoints. Fused projections are taken apart, and the query and key biases with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from mythos_model.families.family import Shape
from mythos_model.families.huginn.config import HuginnConfig
from mythos_model.weights import Sources

# The checkpoint's name of a block's tensor and the model's, where one is one.
_PLAIN = {
    "norm_1.weight": "attn_norm.weight",
    "norm_2.weight": "attn_out_norm.weight",
    "norm_3.weight": "ffn_norm.weight",
    "norm_4.weight": "ffn_out_norm.weight",
    "attn.proj.weight": "attn.wo.weight",
    "mlp.proj.weight": "ffn.down.weight",
}
# And where one is several, along which axis.
_FUSED = {
    "attn.Wqkv.weight": ("attn.wq.weight", "attn.wk.weight", "attn.wv.weight"),
    "attn.qk_bias": ("attn.q_bias", "attn.k_bias"),
    "mlp.fc.weight": ("ffn.gate.weight", "ffn.up.weight"),
}
_OUTSIDE = {
    "transformer.wte.weight": "embed.weight",
    "transformer.adapter.weight": "adapter.weight",
    "transformer.ln_f.weight": "norm.weight",
}


def blocks(config: HuginnConfig) -> Iterator[tuple[str, str]]:
    """The checkpoint's prefix of every block, and the model's."""
    parts = (
        ("prelude", "prelude", config.n_layers_in_prelude),
        ("core_block", "core", config.n_layers_in_recurrent_block),
        ("coda", "coda", config.n_layers_in_coda),
    )
    for theirs, ours, count in parts:
        yield from ((f"transformer.{theirs}.{i}.", f"{ours}.{i}.") for i in range(count))


def shapes(config: HuginnConfig) -> dict[str, Shape]:
    """Every tensor of a checkpoint but the second copy of the embedding and the rotary table."""
    D, F = config.n_embd, config.intermediate_size
    block: dict[str, Shape] = {f"norm_{i}.weight": (D,) for i in range(1, 5)}
    block |= {"attn.Wqkv.weight": (3 * D, D), "attn.proj.weight": (D, D)}
    block |= {"attn.qk_bias": (2, 1, config.n_heads, config.head_dim)}
    block |= {"mlp.fc.weight": (2 * F, D), "mlp.proj.weight": (D, F)}
    outside: dict[str, Shape] = {
        "transformer.wte.weight": (config.padded_vocab_size, D),
        "transformer.adapter.weight": (D, 2 * D),
        "transformer.ln_f.weight": (D,),
    }
    return outside | {theirs + name: shape for theirs, _ in blocks(config) for name, shape in block.items()}


def to_model(config: HuginnConfig, state: Mapping[str, Tensor]) -> Sources:
    """The checkpoint's tensors under the model's names."""
    found = {ours: partial(state.__getitem__, theirs) for theirs, ours in _OUTSIDE.items()}
    for theirs, ours in blocks(config):
        found |= {ours + mine: partial(state.__getitem__, theirs + name) for name, mine in _PLAIN.items()}
        for name, parts in _FUSED.items():
            found |= {ours + part: partial(_part, state, theirs + name, i, len(parts)) for i, part in enumerate(parts)}
    return Sources(found)


def from_model(config: HuginnConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's tensors under the checkpoint's names."""
    expected = shapes(config)
    found = {theirs: state[ours] for theirs, ours in _OUTSIDE.items()}
    for theirs, ours in blocks(config):
        found |= {theirs + name: state[ours + mine] for name, mine in _PLAIN.items()}
        for name, parts in _FUSED.items():
            found[theirs + name] = torch.cat([state[ours + part] for part in parts]).view(expected[theirs + name])
    return found


def _part(state: Mapping[str, Tensor], name: str, index: int, count: int) -> Tensor:
    """A matrix of several that are one, or the bias [1, 1, H, d] as [H*d]; in memory of its own, since torch.export
    takes no views."""
    piece = state[name].chunk(count)[index]
    return piece.clone() if piece.ndim == 2 else piece.flatten().clone()
