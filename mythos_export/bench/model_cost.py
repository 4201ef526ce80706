"""What a call must read and multiply at least, from the configuration alone.

Weights outside the loop count once per call, those of the looped block once per loop: it is met anew each time. Of the
routed experts only the chosen ones count, K per token; how many different ones a batch of tokens chooses is the mean
over uniform routing, E (1 - (1 - K/E)^n). Attention counts in the form that multiplies less, absorbed or expanded.
"""

from __future__ import annotations

from dataclasses import dataclass

from mythos_export.bench.workloads import Workload
from mythos_model import MythosConfig
from mythos_model.formats import FORMATS, ROUNDED


@dataclass(frozen=True)
class Width:
    """Bytes of a value: of the matrices that a precision rounds, their scales included, and of everything else."""

    matrix: float
    other: float


WIDTHS = {
    "fp32": Width(4, 4),
    "fp16": Width(2, 2),
    "bf16": Width(2, 2),
    **{form: Width(FORMATS[form].weight_bytes, 4) for form in ROUNDED},
}
FLOAT32_ARITHMETIC = ("fp32", *ROUNDED)
"""Precisions whose multiplications are float32."""


@dataclass(frozen=True)
class Cost:
    """Bytes read, FLOPs (two per multiplication), and the different bytes among those read: the working set."""

    bytes: float
    flops: float
    working_set: float

    def __add__(self, other: Cost) -> Cost:
        sums = (self.bytes + other.bytes, self.flops + other.flops, self.working_set + other.working_set)
        return Cost(*sums)

    def repeated(self, times: int) -> Cost:
        """The same weights met several times."""
        return Cost(self.bytes * times, self.flops * times, self.working_set if times else 0.0)


def call_cost(config: MythosConfig, workload: Workload, loops: int, precision: str = "fp32") -> Cost:
    """Of one call that runs `loops` loops; `loop_cost` times the loops, and `fixed_cost`."""
    return fixed_cost(config, workload, precision) + loop_cost(config, workload, precision).repeated(loops)


def fixed_cost(config: MythosConfig, workload: Workload, precision: str = "fp32") -> Cost:
    """Embedding rows, prelude, coda and the tied head."""
    rows, width = workload.batch * workload.tokens, WIDTHS[precision]
    layers = config.prelude_layers + config.coda_layers
    dense = _weights(3 * config.dim * config.dense_ffn_dim * layers, rows, width.matrix)
    head = _weights(config.vocab_size * config.dim, rows, width.matrix)
    total = dense + head
    for _ in range(layers):
        total = total + _attention(config, workload, width)
    embedded = rows * config.dim * width.matrix
    return total + Cost(embedded, 0, embedded)


def loop_cost(config: MythosConfig, workload: Workload, precision: str = "fp32") -> Cost:
    """The looped block once: attention over this depth's cache, the router, K of E experts, the shared ones, LoRA."""
    rows, width = workload.batch * workload.tokens, WIDTHS[precision]
    E, K, D = config.n_experts, config.n_experts_per_tok, config.dim
    expert = 3 * D * config.expert_dim
    met = E * (1 - (1 - K / E) ** rows)
    read = met * expert * width.matrix
    routed = Cost(read, 2 * rows * K * expert, read)
    shared = _weights(3 * D * config.shared_ffn_dim, rows, width.matrix)
    others = _weights(D * E + 2 * D * config.lora_rank, rows, width.other)
    return _attention(config, workload, width) + routed + shared + others


def _weights(count: int, rows: int, width: float) -> Cost:
    return Cost(count * width, 2 * rows * count, count * width)


def _attention(config: MythosConfig, workload: Workload, width: Width) -> Cost:
    """One layer: its projections, and the scores and sums over the cache."""
    T, held, rows = workload.tokens, workload.held, workload.batch * workload.tokens
    pairs = workload.batch * (T * held + T * (T + 1) // 2)  # query and key, both real
    H, D = config.n_heads, config.dim
    cache = workload.batch * (held + T) * config.cache_dim * width.other
    if config.attn_type == "gqa":
        weights = 2 * D * config.head_dim * (H + config.n_kv_heads)
        return _weights(weights, rows, width.matrix) + Cost(cache, 4 * pairs * H * config.head_dim, cache)
    nope, rope, v, R = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim, config.kv_lora_rank
    weights = D * config.q_lora_rank + config.q_lora_rank * H * (nope + rope) + D * (R + rope) + H * v * D
    up = H * R * (nope + v)
    absorbed = rows * up + pairs * H * (2 * R + rope)
    expanded = workload.batch * (held + T) * up + pairs * H * (nope + rope + v)
    read = up * width.other + cache
    return _weights(weights, rows, width.matrix) + Cost(read, 2 * min(absorbed, expanded), read)
