"""Golden cases of Nanbeige from the model's own code, with random weights: needs transformers 4.57, and that code.

    python tests/golden_families/make_nanbeige.py FOLDER_OF_MODELING_NANBEIGE_PY [OUT]

Nothing else here needs either. The configuration class is written out below: the model's file reads dozens of fields,
and the released configuration leaves all but these at their "off".
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SOURCE = "modeling_nanbeige.py of Nanbeige4.2-3B, revision 5d54321"
CONFIGURATION = """
from transformers import PretrainedConfig

OFF = dict(
    attention_bias=False, mlp_bias=False, attention_dropout=0.0, hidden_act="silu", pretraining_tp=1, rope_scaling=None,
    qk_layernorm=False, emb_neighbor_num=None, emb_split_num=None, ngram_vocab_size_ratio=None, num_residual_streams=1,
    enable_hyper_connection=False, enable_mhc=False, skip_ngram_for_input=False, insert_ngram_layer_idx=[],
    loop_loss_weights=[], skip_loop_final_norm=False, initializer_range=0.02,
)

class NanbeigeConfig(PretrainedConfig):
    model_type = "nanbeige"

    def __init__(self, **given):
        for name, value in (OFF | given).items():
            setattr(self, name, value)
        super().__init__(**{name: given[name] for name in ("tie_word_embeddings", "pad_token_id") if name in given})
"""
TINY = {
    "architectures": ["NanbeigeForCausalLM"],
    "model_type": "nanbeige",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 61,
    "eos_token_id": 62,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 40,
    "initializer_range": 0.02,
    "intermediate_size": 72,
    "kv_channels": 16,
    "loop_loss_weights": [],
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "num_loops": 2,
    "pad_token_id": 0,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 70000000,
    "skip_loop_final_norm": False,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "vocab_size": 64,
}
# name: changed fields, the call, tokens at once, tokens one by one
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "nanbeige_prefill": ({}, {}, 9, 0),
    "nanbeige_decode": ({}, {}, 4, 6),
    "nanbeige_more_loops": ({}, {"num_steps": 5}, 7, 0),
    "nanbeige_norm_once_tied": ({"skip_loop_final_norm": True, "tie_word_embeddings": True}, {}, 4, 4),
}


def reference(folder: Path) -> Any:
    """The model's own module, beside a configuration class; transformers must be importable."""
    package = Path(tempfile.mkdtemp()) / "nanbeige_reference"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "configuration_nanbeige.py").write_text(CONFIGURATION)
    shutil.copy(folder / "modeling_nanbeige.py", package)
    sys.path.insert(0, str(package.parent))
    return importlib.import_module("nanbeige_reference.modeling_nanbeige")


@torch.no_grad()
def make(module: Any, out: Path, seed: int) -> None:
    name, (changed, call, prefill, decode) = list(CASES.items())[seed]
    fields = TINY | changed
    run = fields | ({"num_loops": call["num_steps"]} if "num_steps" in call else {})
    config = module.NanbeigeConfig(**run)
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model = module.NanbeigeForCausalLM(config).float().eval()
    for parameter in model.parameters():
        drawn = torch.randn_like(parameter)
        parameter.copy_(drawn * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1 + 0.2 * drawn)
    for layer in model.model.layers:
        inner = torch.arange(0, 16, 2).float() / 16
        assert torch.equal(layer.self_attn.rotary_emb.inv_freq, 1.0 / (70000000**inner))
    ids = torch.randint(0, 64, (2, prefill + decode))
    past, logits, mask = None, [], torch.ones_like(ids)
    for start, stop in [(0, prefill), *((at, at + 1) for at in range(prefill, prefill + decode))]:
        answer = model(ids[:, start:stop], attention_mask=mask[:, :stop], past_key_values=past, use_cache=True)
        past = answer.past_key_values
        logits.append(answer.logits.float())
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: x.contiguous() for n, x in model.state_dict().items() if "inv_freq" not in n}
    if fields["tie_word_embeddings"]:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors")
    save_file({"input_ids": ids.int(), "logits": torch.cat(logits, 1)}, folder / "io.safetensors")
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    case = {"model": "nanbeige", "call": call, "seed": seed, "prefill": prefill, "decode": decode, "source": SOURCE}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    for number in range(len(CASES)):
        make(reference(Path(sys.argv[1])), target, number)
