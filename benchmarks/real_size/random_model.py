"""Ouro of the size of Ouro-1.4B with random weights, rounded from the beginning: nowhere are there float32 matrices of
the whole model, so that 24 layers of 2048 take what their rounded form takes.

A few random rows are rounded and repeated. Speed does not depend on values, but for the gate, which decides who leaves.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mythos_export.capture import capture, capture_rows
from mythos_export.lower import lower, lower_rows
from mythos_export.package import package
from mythos_export.progress import silent
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, build
from mythos_export.weights_file import store_model
from mythos_model import Checkpoint
from mythos_model.blocks import Embedding
from mythos_model.families.ouro import FAMILY, Ouro, OuroConfig
from mythos_model.quantized import Quantized, QuantizedEmbedding, QuantizedLinear
from mythos_runtime.program import WEIGHTS

ROWS = 64  # that are random; the others repeat them
CONFIG = OuroConfig(
    vocab_size=49152,
    hidden_size=2048,
    intermediate_size=5632,
    num_hidden_layers=24,
    num_attention_heads=16,
    num_key_value_heads=16,
    head_dim=128,
    max_position_embeddings=4096,
    rope_theta=1000000.0,
)


ADDED = ("attn_out_norm.weight", "ffn_out_norm.weight")  # what a layer adds is normed by them
SETTLED = 1e-5  # of what a layer of a settled model would add to the state


def random_model(config: OuroConfig, form: str, seed: int = 0, settled: bool = False) -> Ouro:
    """A model whose matrices are random in the format `form`; its gate lets tokens leave at every pass.

    A `settled` one's layers add next to nothing, so that every pass picks the token that the first one did.
    """
    generator = torch.Generator().manual_seed(seed)

    def few(inputs: int) -> torch.Tensor:
        drawn: torch.Tensor = torch.randn(ROWS, inputs, generator=generator) * inputs**-0.5
        return drawn

    with torch.device("meta"):
        model = Ouro(config)
    for name, module in list(model.named_modules()):
        if isinstance(module, Embedding):
            embedding = QuantizedEmbedding(Embedding.from_pretrained(few(module.embedding_dim)), form)
            model.set_submodule(name, _repeated(embedding, "num_embeddings", module.num_embeddings))
        elif isinstance(module, nn.Linear) and module.bias is None:
            small = nn.Linear(module.in_features, ROWS, bias=False)
            small.weight.data = few(module.in_features)
            model.set_submodule(name, _repeated(QuantizedLinear(small, form), "out_features", module.out_features))
    gate = torch.randn(1, config.hidden_size, generator=generator) * config.hidden_size**-0.5
    rest = {name: torch.ones(x.shape) for name, x in model.named_parameters()}
    rest |= {"gate.gate.weight": gate, "gate.gate.bias": torch.zeros(1)}
    if settled:
        added = [name for name in rest if name.endswith(ADDED)]
        assert len(added) == 2 * config.num_hidden_layers
        rest |= {name: SETTLED * rest[name] for name in added}
    model.load_state_dict(rest, strict=False, assign=True)
    return model.requires_grad_(False).eval()


def _repeated(module: Quantized, size: str, rows: int) -> Quantized:
    """The module with so many rows."""
    assert rows % ROWS == 0
    for name in module.held():
        held = getattr(module, name)
        setattr(module, name, held.repeat(rows // ROWS, *[1] * (held.ndim - 1)))
    setattr(module, size, rows)
    return module


def make_bundle(config: OuroConfig, form: str, folder: Path, settled: bool = False) -> Path:
    """The model as a bundle, made as an export makes it but for the verification, whose float64 truth takes more memory
    than small machines have. Of small models of the same family it is the same graph."""
    model = random_model(config, form, settled=settled)
    folder.mkdir(parents=True)
    weights = store_model(model, folder / WEIGHTS)
    captured, rows = capture(weights.model), capture_rows(weights.model)
    assert rows is not None
    lowered = replace(lower(captured, weights), rows=lower_rows(rows, weights))
    built = build(lowered, folder, find_target("onnx"), TargetOptions(form), silent)
    checkpoint = Checkpoint(FAMILY, config, {}, Path(f"random-ouro-{form}"), "0" * 64, "random", folder)
    package(folder, checkpoint, form, captured, weights, built).without({"program"}).finish()
    return folder


def weight_bytes(bundle: Path) -> dict[str, int]:
    """Bytes of the rounded weights: `pass`, that every pass reads, and `head`, that every token reads once."""
    with (bundle / "weights.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes = {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in header.items()}
    inside = sum(size for name, size in sizes.items() if name.startswith("layers."))
    return {"pass": inside, "head": sum(size for name, size in sizes.items() if name.startswith("head."))}
