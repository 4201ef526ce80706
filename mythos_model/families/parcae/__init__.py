"""Parcae (card.md): a few layers looped from a random state, into which every loop feeds the prompt's encoding."""

from mythos_model.families.family import Family, fewer
from mythos_model.families.parcae.config import ParcaeConfig, read_config
from mythos_model.families.parcae.model import Parcae
from mythos_model.families.parcae.names import shapes

FAMILY = Family(
    name="parcae",
    model=Parcae,
    configuration=ParcaeConfig,
    model_types=(),
    class_names=("ParcaeConfig", "Parcae"),
    marks=("transformer.C.weight", "transformer.core_block.0.attn.c_q.weight"),
    read_config=read_config,
    shapes=shapes,
    aliases=lambda config: {"lm_head.weight": "transformer.wte.weight"} if config.tie_embeddings else {},
    ignored=("freqs_cis",),
    rotary=lambda config: {"freqs_cis": (config.rope_base, config.head_dim)},
    counts=("n_layers_in_prelude", "n_layers_in_recurrent_block", "n_layers_in_coda"),
    twin=lambda config: fewer(config, padded_vocab_size=512),
)

__all__ = ["FAMILY", "Parcae", "ParcaeConfig"]
