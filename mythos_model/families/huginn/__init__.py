"""Huginn (card.md): a few layers run many times from a random state; every loop is given the prompt's embedding."""

from mythos_model.families.family import Family, fewer
from mythos_model.families.huginn.config import HuginnConfig, read_config
from mythos_model.families.huginn.model import Huginn
from mythos_model.families.huginn.names import shapes

_AROUND = {"n_layers_in_prelude": 1, "n_layers_in_coda": 1}

FAMILY = Family(
    name="huginn",
    model=Huginn,
    configuration=HuginnConfig,
    model_types=("huginn_raven",),
    class_names=("RavenForCausalLM", "RavenConfig"),
    marks=("transformer.adapter.weight", "transformer.core_block.0.attn.Wqkv.weight"),
    read_config=read_config,
    shapes=shapes,
    aliases=lambda config: {"lm_head.weight": "transformer.wte.weight"},
    ignored=("freqs_cis",),
    rotary=lambda config: {"freqs_cis": (config.rope_base, config.head_dim)},
    counts=("n_layers_in_prelude", "n_layers_in_recurrent_block", "n_layers_in_coda"),
    twin=lambda config: fewer(
        config,
        n_layers_in_prelude=1,
        n_layers_in_recurrent_block=2,
        n_layers_in_coda=1,
        mean_recurrence=8,
        padded_vocab_size=512,
    ),
)

__all__ = ["FAMILY", "Huginn", "HuginnConfig"]
