"""llama.cpp (of the package xllamacpp) on models of random weights that read as many bytes a token as ours do.

    python -m benchmarks.real_size.llama FILE.gguf THREADS [PROMPT]     # a line of JSON for every line of stdin

`write_dense`: Ouro's layers once for each pass, and its head. `write_experts`: OpenMythos' prelude, block and coda in
llama.cpp's DeepSeek-2, which has its attention (MLA), its routed experts and its shared ones; the block once for each
loop. All of one format all through.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_size.gguf_file import RandomFile
from benchmarks.real_size.random_model import CONFIG
from mythos_export.bench.resources import peak_memory
from mythos_model import MythosConfig

PROMPT, TOKENS = 16, 8


def write_dense(path: Path, form: str, layers: int) -> None:
    """Write a model of so many layers of Ouro's size, its matrices in the format `form`, Q4_0 or Q8_0."""
    c = CONFIG
    fields = {
        "block_count": layers,
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "feed_forward_length": c.intermediate_size,
        "head_count": c.num_attention_heads,
        "head_count_kv": c.num_key_value_heads,
        "layer_norm_rms_eps": c.rms_norm_eps,
        "rope_freq_base": c.rope_theta,
        "vocab_size": c.vocab_size,
    }
    file = RandomFile(path, form, "llama", fields)
    D, F = c.hidden_size, c.intermediate_size
    ones = np.ones(D)
    file.matrix("token_embd.weight", D, c.vocab_size)
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            file.matrix(f"blk.{i}.{name}.weight", D, D)
        file.matrix(f"blk.{i}.ffn_gate.weight", D, F)
        file.matrix(f"blk.{i}.ffn_up.weight", D, F)
        file.matrix(f"blk.{i}.ffn_down.weight", F, D)
        file.values(f"blk.{i}.attn_norm.weight", ones)
        file.values(f"blk.{i}.ffn_norm.weight", ones)
    file.values("output_norm.weight", ones)
    file.matrix("output.weight", D, c.vocab_size)
    file.close()


def write_experts(path: Path, form: str, c: MythosConfig, loops: int) -> None:
    """Write OpenMythos (MLA) unrolled to `loops` loops, its dense layers first: DeepSeek-2 knows them nowhere else.

    A shared expert is as wide as all routed ones of a token, and DeepSeek-2's as wide as one: it has as many more. The
    dense networks' width is rounded up to whole blocks of 32, LoRA and injection are left out.
    """
    import gguf

    dense, width = c.prelude_layers + c.coda_layers, -(-c.dense_ffn_dim // 32) * 32
    shared = c.n_shared_experts * c.n_experts_per_tok
    fields: dict[str, Any] = {
        "block_count": dense + loops,
        "context_length": c.max_seq_len,
        "embedding_length": c.dim,
        "feed_forward_length": width,
        "head_count": c.n_heads,
        "head_count_kv": 1,
        "layer_norm_rms_eps": 1e-6,
        "rope_freq_base": c.rope_theta,
        "rope_dimension_count": c.qk_rope_head_dim,
        "vocab_size": c.vocab_size,
        "leading_dense_block_count": dense,
        "q_lora_rank": c.q_lora_rank,
        "kv_lora_rank": c.kv_lora_rank,
        "key_length": c.kv_lora_rank + c.qk_rope_head_dim,
        "value_length": c.kv_lora_rank,
        "key_length_mla": c.qk_nope_head_dim + c.qk_rope_head_dim,
        "value_length_mla": c.v_head_dim,
        "expert_feed_forward_length": c.expert_dim,
        "expert_count": c.n_experts,
        "expert_used_count": c.n_experts_per_tok,
        "expert_shared_count": shared,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": gguf.ExpertGatingFuncType.SOFTMAX,
    }
    file = RandomFile(path, form, "deepseek2", fields)
    D, H = c.dim, c.n_heads
    file.matrix("token_embd.weight", D, c.vocab_size)
    for i in range(dense + loops):
        file.values(f"blk.{i}.attn_norm.weight", np.ones(D))
        file.matrix(f"blk.{i}.attn_q_a.weight", D, c.q_lora_rank)
        file.values(f"blk.{i}.attn_q_a_norm.weight", np.ones(c.q_lora_rank))
        file.matrix(f"blk.{i}.attn_q_b.weight", c.q_lora_rank, H * fields["key_length_mla"])
        file.matrix(f"blk.{i}.attn_kv_a_mqa.weight", D, fields["key_length"])
        file.values(f"blk.{i}.attn_kv_a_norm.weight", np.ones(c.kv_lora_rank))
        file.matrix(f"blk.{i}.attn_k_b.weight", c.qk_nope_head_dim, H, c.kv_lora_rank)
        file.matrix(f"blk.{i}.attn_v_b.weight", c.kv_lora_rank, H, c.v_head_dim)
        file.matrix(f"blk.{i}.attn_output.weight", H * c.v_head_dim, D)
        file.values(f"blk.{i}.ffn_norm.weight", np.ones(D))
        if i >= dense:
            file.values(f"blk.{i}.ffn_gate_inp.weight", np.random.default_rng(i).standard_normal((c.n_experts, D)))
        sides: list[tuple[str, tuple[int, ...], int]]
        sides = [("", (), width)] if i < dense else [("_exps", (c.n_experts,), c.expert_dim)]
        sides += [("_shexp", (), shared * c.expert_dim)] if i >= dense else []
        for kind, experts, hidden in sides:
            file.matrix(f"blk.{i}.ffn_gate{kind}.weight", D, *experts, hidden)
            file.matrix(f"blk.{i}.ffn_up{kind}.weight", D, *experts, hidden)
            file.matrix(f"blk.{i}.ffn_down{kind}.weight", hidden, *experts, D)
    file.values("output_norm.weight", np.ones(D))
    file.matrix("output.weight", D, c.vocab_size)
    file.close()


def serve(path: Path, threads: int, prompt: int) -> None:
    """Answer every line of stdin with the milliseconds of a decoded token, and of the prompt."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx, params.n_parallel, params.n_predict, params.warmup = 256, 1, TOKENS, False
    server = xllamacpp.Server(params)

    def spent(tokens: int) -> tuple[float, float, dict[str, float]]:
        """Wall and CPU seconds of a whole request, and the times that llama.cpp says."""
        request: dict[str, Any] = {"prompt": list(range(300, 300 + prompt)), "n_predict": tokens, "ignore_eos": True}
        started, used = time.perf_counter(), time.process_time()
        answer = server.handle_completions(request | {"temperature": 0.0, "cache_prompt": False})
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        return wall, cpu, answer["timings"]

    for _ in sys.stdin:
        few, many = spent(1), spent(1 + TOKENS)
        wall, cpu = 1e3 * (many[0] - few[0]) / TOKENS, 1e3 * (many[1] - few[1]) / TOKENS
        said = {"said": many[2]["predicted_per_token_ms"], "prompt": few[2]["prompt_ms"]}
        print("\n" + json.dumps({"wall": wall, "cpu": cpu, **said, "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else PROMPT)
