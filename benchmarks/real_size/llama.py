"""llama.cpp (of the package xllamacpp) on a dense model that reads as many bytes a token as four passes of Ouro-1.4B.

    python -m benchmarks.real_size.llama FILE.gguf THREADS     # a line of JSON for every line of stdin

The model has Ouro's layers once for each pass, of one format all through, and its head. Its weights are random bytes
with small scales: what it says means nothing, and takes as long.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_size.random_model import CONFIG
from mythos_export.bench.resources import peak_memory

_BLOCK = {"Q4_0": 18, "Q8_0": 34}  # bytes of 32 weights, the first two their scale
PROMPT, TOKENS = 16, 8


def write_model(path: Path, form: str, layers: int) -> None:
    """Write a model of so many layers, its matrices in the format `form`, Q4_0 or Q8_0."""
    import gguf

    c = CONFIG
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_theta)
    writer.add_vocab_size(c.vocab_size)
    words = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
    words += [f"w{i}".encode() for i in range(c.vocab_size - len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (c.vocab_size - 259)])
    kind = gguf.GGMLQuantizationType[form]
    generator = np.random.default_rng(0)

    def matrix(name: str, rows: int, inputs: int) -> None:
        blocks = generator.integers(0, 256, (64, inputs // 32, _BLOCK[form]), np.uint8)
        blocks[..., :2] = np.full((64, inputs // 32), 0.01 * inputs**-0.5, np.float16)[..., None].view(np.uint8)
        data = np.tile(blocks.reshape(64, -1), (rows // 64, 1))
        writer.add_tensor(name, data, raw_dtype=kind)

    D, F = c.hidden_size, c.intermediate_size
    ones = np.ones(D, np.float32)
    matrix("token_embd.weight", c.vocab_size, D)
    for i in range(layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{i}.{name}.weight", D, D)
        matrix(f"blk.{i}.ffn_gate.weight", F, D)
        matrix(f"blk.{i}.ffn_up.weight", F, D)
        matrix(f"blk.{i}.ffn_down.weight", D, F)
        writer.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
    writer.add_tensor("output_norm.weight", ones)
    matrix("output.weight", c.vocab_size, D)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def serve(path: Path, threads: int) -> None:
    """Answer every line of stdin with the milliseconds of a decoded token."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_ctx, params.n_parallel, params.n_predict, params.warmup = 256, 1, TOKENS, False
    server = xllamacpp.Server(params)

    def spent(tokens: int) -> tuple[float, float, float]:
        """Wall and CPU seconds of a whole request, and milliseconds a token as llama.cpp says it."""
        request: dict[str, Any] = {"prompt": list(range(300, 300 + PROMPT)), "n_predict": tokens, "ignore_eos": True}
        started, used = time.perf_counter(), time.process_time()
        answer = server.handle_completions(request | {"temperature": 0.0, "cache_prompt": False})
        wall, cpu = time.perf_counter() - started, time.process_time() - used
        answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
        return wall, cpu, answer["timings"]["predicted_per_token_ms"]

    for _ in sys.stdin:
        few, many = spent(1), spent(1 + TOKENS)
        wall, cpu = (1e3 * (many[i] - few[i]) / TOKENS for i in range(2))
        print("\n" + json.dumps({"wall": wall, "cpu": cpu, "said": many[2], "peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
