"""OpenMythos (card.md): prelude, one looped block with experts, LoRA, injection and ACT halting, coda."""

from mythos_model.families.family import Family, fewer
from mythos_model.families.openmythos.config import VARIANTS, MythosConfig
from mythos_model.families.openmythos.model import MythosModel
from mythos_model.families.openmythos.names import read_config, reference_shapes


def _twin(config: MythosConfig) -> MythosConfig:
    """An expert more than a token chooses: enough for choices to differ."""
    experts = {"n_experts": config.n_experts_per_tok + 1, "n_shared_experts": 1}
    return fewer(config, vocab_size=512, prelude_layers=1, coda_layers=1, max_loop_iters=8, **experts)  # type: ignore[no-any-return]


FAMILY = Family(
    name="openmythos",
    model=MythosModel,
    configuration=MythosConfig,
    model_types=("openmythos", "open_mythos"),
    class_names=("MythosConfig", "OpenMythos"),
    marks=("recurrent.injection.log_A", "recurrent.act.halt.weight"),
    read_config=read_config,
    shapes=reference_shapes,
    aliases=lambda config: {"head.weight": "embed.weight"},
    ignored=("freqs_cis", "freqs_cis_mla"),
    rotary=lambda config: {
        "freqs_cis_mla" if config.attn_type == "mla" else "freqs_cis": (config.rope_theta, config.rope_dim)
    },
    counts=("prelude_layers", "coda_layers", "n_experts", "n_shared_experts"),
    variants=VARIANTS,
    twin=_twin,
)

__all__ = ["FAMILY", "VARIANTS", "MythosConfig", "MythosModel"]
