"""What the runtime needs to know of a model, read from the manifest's `config` and held against its ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mythos_runtime.errors import BundleError
from mythos_runtime.fields import Fields
from mythos_runtime.manifest import Manifest
from mythos_runtime.ports import CACHE_DTYPES, Ports, first_difference, model_ports

_MOST = (1 << 31) - 1  # of any single size: sums and products of a few stay within 64 bits


@dataclass(frozen=True)
class RuntimeConfig:
    """Sizes and defaults of a model, as far as running it needs them."""

    vocab_size: int
    max_seq_len: int
    max_loop_iters: int  # the default of max_loops
    act_threshold: float  # the default of halt_threshold
    max_output_tokens: int
    layers: int  # prelude and coda together: what past_layers stacks
    cache_width: int  # C, values cached per token and layer or loop depth
    cache_dtype: str = "float32"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], cache_dtype: str, where: str = "config") -> RuntimeConfig:
        """From a model configuration as `mythos_model` writes it; fields that the runtime has no use for may be there.

        Raises:
            BundleError: a field that is needed is missing or has the wrong type.
        """
        fields = Fields(values, where, "config")

        def size(name: str, least: int = 1) -> int:
            return fields.integer(name, least, _MOST)

        if fields.choice("attn_type", ("mla", "gqa")) == "mla":
            width = size("kv_lora_rank") + size("qk_rope_head_dim")
        else:
            dim, heads = size("dim"), size("n_heads")
            if dim % heads:
                raise fields.fail("n_heads", f"a divisor of dim ({dim})", heads)
            width = 2 * size("n_kv_heads") * (dim // heads)
        return cls(
            vocab_size=size("vocab_size"),
            max_seq_len=size("max_seq_len"),
            max_loop_iters=size("max_loop_iters"),
            act_threshold=fields.number("act_threshold"),
            max_output_tokens=size("max_output_tokens"),
            layers=size("prelude_layers", 0) + size("coda_layers", 0),
            cache_width=width,
            cache_dtype=cache_dtype,
        )

    @classmethod
    def from_manifest(cls, manifest: Manifest, where: str = "manifest.json") -> RuntimeConfig:
        """From a manifest; also checks that its ports are the ones this runtime feeds (BundleError)."""
        past = next((port for port in manifest.ports.inputs if port.name == "past_loop"), None)
        if past is None or past.dtype not in CACHE_DTYPES:
            found = "is missing" if past is None else f"is {past.dtype}"
            raise BundleError(f"{where}: the input past_loop {found}, expected one of {', '.join(CACHE_DTYPES)}")
        config = cls.from_dict(manifest.config, past.dtype, where)
        difference = first_difference(config.ports(), manifest.ports)
        if difference:
            raise BundleError(f"{where}: the ports do not fit this runtime and the configuration: {difference}")
        return config

    def ports(self) -> Ports:
        """The ports that a graph of this model has."""
        return model_ports(
            layers=self.layers,
            cache_width=self.cache_width,
            vocab_size=self.vocab_size,
            cache_dtype=self.cache_dtype,
        )
