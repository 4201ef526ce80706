"""The configuration of an OpenMythos model, its named variants, and what can be known from it without weights.

    >>> from mythos_model import MythosConfig
    >>> config = MythosConfig.variant("1b")
    >>> f"{config.parameter_count():.3e}"
    '1.064e+09'

Field names and defaults are those of the public OpenMythos implementation (version 0.5.0), so that its JSON and its
pickled configurations can be read as they are.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mythos_model.errors import ConfigError

AttentionType = Literal["mla", "gqa"]


@dataclass(frozen=True)
class MythosConfig:
    """Hyper-parameters of a recurrent-depth transformer: prelude, one looped block, coda.

    Raises:
        ConfigError: a value has the wrong type or the fields contradict each other; the message lists every problem.
    """

    vocab_size: int = 32000
    dim: int = 2048
    n_heads: int = 16
    n_kv_heads: int = 4  # GQA only
    max_seq_len: int = 4096
    max_loop_iters: int = 16  # loops of training; more may be run
    prelude_layers: int = 2
    coda_layers: int = 2
    attn_type: AttentionType = "mla"
    kv_lora_rank: int = 512  # MLA only, as the five below
    q_lora_rank: int = 1536
    qk_rope_head_dim: int = 64
    qk_nope_head_dim: int = 128
    v_head_dim: int = 128
    n_experts: int = 64
    n_shared_experts: int = 2
    n_experts_per_tok: int = 4
    expert_dim: int = 512
    act_threshold: float = 0.99
    rope_theta: float = 500000.0
    lora_rank: int = 16
    max_output_tokens: int = 4096
    dropout: float = 0.0  # training only; an exported model has none

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ConfigError("the model configuration does not hold together: " + "; ".join(problems))

    # -- derived sizes ------------------------------------------------------------------------------------------------

    @property
    def head_dim(self) -> int:
        """Width of one GQA head."""
        return self.dim // self.n_heads

    @property
    def rope_dim(self) -> int:
        """Channels per head that carry the rotary position: all of them in GQA, `qk_rope_head_dim` in MLA."""
        return self.qk_rope_head_dim if self.attn_type == "mla" else self.head_dim

    @property
    def dense_ffn_dim(self) -> int:
        """Width of the SwiGLU in prelude and coda."""
        return self.dim * 4 // 3

    @property
    def shared_ffn_dim(self) -> int:
        """Width of all shared experts together: a sum of SwiGLUs is one SwiGLU of the summed width."""
        return self.n_shared_experts * self.expert_dim * self.n_experts_per_tok

    @property
    def loop_embedding_dim(self) -> int:
        """Channels of h that carry the loop index."""
        return self.dim // 8

    @property
    def cache_dim(self) -> int:
        """C, the values cached per token and layer (or loop depth).

        MLA: the normed latent and one rotary key for all heads. GQA: keys, then values, of every kv head.
        """
        if self.attn_type == "mla":
            return self.kv_lora_rank + self.qk_rope_head_dim
        return 2 * self.n_kv_heads * self.head_dim

    # -- parameter counts ---------------------------------------------------------------------------------------------

    def _attention_parameters(self) -> int:
        if self.attn_type == "gqa":
            return 2 * self.dim * self.head_dim * (self.n_heads + self.n_kv_heads)
        q = self.dim * self.q_lora_rank + self.q_lora_rank
        q += self.q_lora_rank * self.n_heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        kv = self.dim * (self.kv_lora_rank + self.qk_rope_head_dim) + self.kv_lora_rank
        kv += self.kv_lora_rank * self.n_heads * (self.qk_nope_head_dim + self.v_head_dim)
        return q + kv + self.n_heads * self.v_head_dim * self.dim

    def _loop_parameters(self, experts: int) -> int:
        """Weights of the recurrent block with `experts` routed experts counted."""
        moe = 3 * self.dim * (experts * self.expert_dim + self.shared_ffn_dim)
        router = self.n_experts * (self.dim + 1)
        lora = self.lora_rank * (2 * self.dim + self.max_loop_iters)
        injection, halting, norms = 2 * self.dim + 1, self.dim + 1, 3 * self.dim
        return self._attention_parameters() + moe + router + lora + injection + halting + norms

    def parameter_count(self) -> int:
        """All parameters of the model (the tied head counted once), computed without allocating any."""
        dense = self._attention_parameters() + 3 * self.dim * self.dense_ffn_dim + 2 * self.dim
        layers = self.prelude_layers + self.coda_layers
        return self.vocab_size * self.dim + layers * dense + self._loop_parameters(self.n_experts) + self.dim

    def active_parameters_per_loop(self) -> int:
        """Weights that one token reads in one loop: the block with its `n_experts_per_tok` chosen experts."""
        return self._loop_parameters(self.n_experts_per_tok)

    # -- forms --------------------------------------------------------------------------------------------------------

    @classmethod
    def variant(cls, name: str) -> MythosConfig:
        """One of the named variants (`VARIANTS`): 1b, 3b, 10b, 50b, 100b, 500b, 1t."""
        try:
            return VARIANTS[name.lower()]
        except KeyError:
            raise ConfigError(f"there is no variant {name!r}; the variants are {', '.join(VARIANTS)}") from None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MythosConfig:
        """A configuration from a mapping; absent fields take their defaults, unknown ones are an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown fields in the model configuration: {', '.join(unknown)}")
        return cls(**values)

    @classmethod
    def from_json(cls, path: str | Path) -> MythosConfig:
        """Read a `config.json`; raises ConfigError where it is missing or is no JSON object."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the model configuration {path}: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(
                f"{path} should hold a JSON object with the model's fields, not a {type(values).__name__}"
            )
        return cls.from_dict(values)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def _problems(config: MythosConfig) -> Iterator[str]:
    """Everything that is wrong with a configuration, one phrase each."""
    types_hold = True
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool)):
            types_hold = False
            yield f"{field.name} should be an integer, found {value!r}"
        if field.type == "float" and (
            not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value)
        ):
            types_hold = False
            yield f"{field.name} should be a finite number, found {value!r}"
    if config.attn_type not in ("mla", "gqa"):
        types_hold = False
        yield f"attn_type should be 'mla' or 'gqa', found {config.attn_type!r}"
    if not types_hold:
        return
    may_be_zero = {"prelude_layers", "coda_layers", "n_shared_experts"}
    if config.attn_type == "mla":
        may_be_zero |= {"n_kv_heads"}
    else:
        may_be_zero |= {"kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in may_be_zero else 1
        if field.type == "int" and value < least:
            yield f"{field.name} should be at least {least}, found {value}"
            return
    if config.n_experts_per_tok > config.n_experts:
        yield f"n_experts_per_tok ({config.n_experts_per_tok}) exceeds n_experts ({config.n_experts})"
    if config.rope_dim % 2:
        yield f"the rotary width must be even, found {config.rope_dim}"
    for name, smallest, largest in (("rope_theta", 1.0, 1e12), ("act_threshold", 0.0, 1.0), ("dropout", 0.0, 1.0)):
        if not smallest <= getattr(config, name) <= largest:
            yield f"{name} should be from {smallest:g} to {largest:g}, found {getattr(config, name)}"
    if config.attn_type == "gqa":
        if config.dim % config.n_heads:
            yield f"dim ({config.dim}) is not divisible by n_heads ({config.n_heads})"
        if config.n_heads % config.n_kv_heads:
            yield f"n_heads ({config.n_heads}) is not divisible by n_kv_heads ({config.n_kv_heads})"


VARIANTS: dict[str, MythosConfig] = {
    name: MythosConfig(**fields)
    for name, fields in json.loads(Path(__file__).with_name("variants.json").read_text(encoding="utf-8")).items()
}
"""The named variants, in variants.json by the fields in which they differ from the defaults: `mythos plan` reads them
without importing torch."""
