"""Ouro (card.md): a decoder run several times over, with a learnt gate that says when to leave."""

from mythos_model.families.family import Family, fewer
from mythos_model.families.halves import FREQUENCIES
from mythos_model.families.ouro.config import OuroConfig, read_config
from mythos_model.families.ouro.model import Ouro
from mythos_model.families.ouro.names import shapes

FAMILY = Family(
    name="ouro",
    model=Ouro,
    configuration=OuroConfig,
    model_types=("ouro",),
    class_names=("OuroConfig", "OuroForCausalLM"),
    marks=("model.early_exit_gate.weight", "model.layers.0.input_layernorm_2.weight"),
    read_config=read_config,
    shapes=shapes,
    ignored=(FREQUENCIES,),
    rotary=lambda config: {FREQUENCIES: (config.rope_theta, config.head_dim)},
    counts=("num_hidden_layers",),
    twin=lambda config: fewer(config, num_hidden_layers=2, vocab_size=512),
)

__all__ = ["FAMILY", "Ouro", "OuroConfig"]
