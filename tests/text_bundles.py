"""Bundles that speak: a golden one with another tokenizer entry in its manifest, and a tokenizer.json for others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from mythos_runtime.files import describe

EOS = 256  # of `byte_level`
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def speaking_copy(bundle: Path, folder: Path) -> Path:
    """The bundle as if it had been exported with the byte tokenizer and a chat template."""
    shutil.copytree(bundle, folder)
    template = folder / "chat_template.jinja"
    template.write_text(TEMPLATE)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][template.name] = vars(describe(template))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    change_tokenizer(folder, kind="bytes", file=None, chat_template=template.name)
    return folder


def change_template(folder: Path, template: str, special_tokens: dict[str, str]) -> Path:
    """Another template in a `speaking_copy`."""
    file = folder / "chat_template.jinja"
    file.write_text(template)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file.name] = vars(describe(file))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    change_tokenizer(folder, special_tokens=special_tokens)
    return folder


def hub_folder(folder: Path, vocab_size: int) -> Path:
    """A small model as hubs hold one, with random embeddings: config.json with foreign fields, model.safetensors."""
    golden = Path(__file__).parent / "golden" / "mla_prefill"
    config = json.loads((golden / "case.json").read_text())["config"]
    tensors, random = load_file(golden / "model.safetensors"), np.random.default_rng(0)
    tensors["embed.weight"] = random.normal(0, 0.5, (vocab_size, config["dim"])).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    foreign = {"architectures": ["OpenMythos"], "model_type": "openmythos", "use_cache": True, "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps({**config, **foreign, "vocab_size": vocab_size}))
    return folder


def with_tokenizer(bundle: Path, folder: Path, file: Path) -> Path:
    """The bundle as if it had been exported with this tokenizer.json."""
    shutil.copytree(bundle, folder)
    shutil.copy(file, folder / "tokenizer.json")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["tokenizer.json"] = vars(describe(folder / "tokenizer.json"))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    change_tokenizer(folder, kind="tokenizer.json", file="tokenizer.json")
    return folder


def change_tokenizer(folder: Path, **fields: Any) -> None:
    """Write other fields into the manifest's tokenizer entry."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"] = (manifest.get("tokenizer") or {}) | fields
    (folder / "manifest.json").write_text(json.dumps(manifest))


def byte_level(path: Path) -> Path:
    """A GPT-2-like tokenizer.json of single bytes, saved as training leaves it: truncating, padding, adding an EOS."""
    import tokenizers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(letters)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", EOS)]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=12, pad_id=EOS, pad_token="<|end|>")
    tokenizer.save(str(path))
    return path
