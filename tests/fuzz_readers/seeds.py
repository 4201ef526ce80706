"""What is mutated: small checkpoints in every form, a tokenizer and a bundle.

Each subject writes a folder, reads it as the product does, and holds that to what an independent reader finds there.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mythos_export.verify.golden import GOLDEN, load_golden
from mythos_model import load_checkpoint
from mythos_model.checkpoint import read_checkpoint
from mythos_runtime.files import describe
from mythos_runtime.manifest import parse_manifest, read_manifest, write_manifest
from mythos_runtime.program import read_tensors
from mythos_runtime.tokenizer import JsonTokenizer, load_tokenizer

CONFIG = {
    "vocab_size": 32, "dim": 16, "n_heads": 2, "n_kv_heads": 1, "max_seq_len": 64, "max_loop_iters": 3,
    "prelude_layers": 1, "coda_layers": 1, "attn_type": "gqa", "n_experts": 2, "n_shared_experts": 1,
    "n_experts_per_tok": 1, "expert_dim": 8, "act_threshold": 0.9, "rope_theta": 10000.0, "lora_rank": 2,
}  # fmt: skip
FAMILIES = Path(__file__).parents[1] / "golden_families"
TEXT = "the quick brown fox jumps over the lazy dog, again and again"


class SilentDifference(Exception):
    """A mutant was read as something that it is not."""


@dataclass(frozen=True)
class Subject:
    """Attributes:
    write: makes the folder that is mutated.
    check: reads it; raises SilentDifference, or the product's own errors.
    """

    write: Callable[[Path], None]
    check: Callable[[Path], None]


def weights() -> dict[str, Tensor]:
    """An OpenMythos of about 8000 numbers, under the reference's names."""
    generator = torch.Generator().manual_seed(0)
    block = {"attn_norm.weight": (16,), "ffn_norm.weight": (16,), "attn.wq.weight": (16, 16), "attn.wk.weight": (8, 16),
             "attn.wv.weight": (8, 16), "attn.wo.weight": (16, 16)}  # fmt: skip
    dense = {"ffn.gate.weight": (21, 16), "ffn.up.weight": (21, 16), "ffn.down.weight": (16, 21)}
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (32, 16), "norm.weight": (16,)}
    for part in ("prelude.0.", "coda.0."):
        shapes |= {part + name: shape for name, shape in (block | dense).items()}
    block |= {"ffn.router.weight": (2, 16), "ffn.router_bias": (2,)}
    for expert in ("routed_experts.0.", "routed_experts.1.", "shared_experts.0."):
        for name, shape in (("gate", (8, 16)), ("up", (8, 16)), ("down", (16, 8))):
            block[f"ffn.{expert}{name}.weight"] = shape
    shapes |= {f"recurrent.block.{name}": shape for name, shape in block.items()}
    loop = {"injection.log_A": (16,), "injection.log_dt": (1,), "injection.B": (16,), "act.halt.weight": (1, 16),
            "act.halt.bias": (1,), "lora.down.weight": (2, 16), "lora.B": (2, 16), "lora.scale.weight": (3, 2),
            "norm.weight": (16,)}  # fmt: skip
    shapes |= {f"recurrent.{name}": shape for name, shape in loop.items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _config(folder: Path) -> None:
    fields = CONFIG | {"architectures": ["x"], "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(fields))


def _training(folder: Path, **how: Any) -> None:
    """As the reference's training script saves it, with an object of a class for its configuration."""
    value = {"step": 3, "model": weights(), "optimizer": {"state": {}, "param_groups": []}, "vocab_size": 32}
    torch.save(value | {"cfg": argparse.Namespace(**CONFIG)}, folder / "step_3.pt", **how)


def _single(folder: Path) -> None:
    safetensors.torch.save_file(weights(), folder / "model.safetensors")
    _config(folder)


def _bin(folder: Path) -> None:
    torch.save(weights(), folder / "pytorch_model.bin")
    _config(folder)


def _shards(folder: Path, stem: str, ending: str, save: Callable[..., Any]) -> None:
    state = weights()
    names = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    places = {name: names[i % 2] for i, name in enumerate(state)}
    for shard in names:
        save({name: tensor for name, tensor in state.items() if places[name] == shard}, folder / shard)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    _config(folder)


def _hub_cache(folder: Path) -> None:
    """Shards as links to blobs, in the hub's own layout."""
    snapshot, blobs = folder / "models--o--n" / "snapshots" / "r", folder / "models--o--n" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    _shards(snapshot, "model", "safetensors", safetensors.torch.save_file)
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(blobs / str(number))
        file.symlink_to(f"../../blobs/{number}")


def _family(name: str) -> Subject:
    """A golden checkpoint of a family: shards with an index as the hub has them, or one file."""
    source = FAMILIES / name

    def written() -> Mapping[str, Tensor]:
        return read_checkpoint(source).tensors

    return Subject(lambda folder: _copy_checkpoint(source, folder), lambda folder: check_checkpoint(folder, written))


def _copy_checkpoint(source: Path, folder: Path) -> None:
    for file in source.iterdir():
        if file.name.startswith(("model", "config")):
            (folder / file.name).write_bytes(file.read_bytes())


def check_checkpoint(folder: Path, written: Callable[[], Mapping[str, Tensor]] = weights) -> None:
    """What was read is what an independent reader finds, or else what was written."""
    path = next(iter(folder.glob("models--*/snapshots/*")), folder)
    raw = read_checkpoint(path)
    raw.examine(list(raw.shapes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = _independently(path)
    except Exception:  # whatever the other reader cannot read must be what was written, unharmed
        expected = dict(written())
    expected = {name.removeprefix("module."): tensor for name, tensor in expected.items()}
    for name in raw.shapes:
        mine, other = raw.tensors[name], expected.get(name)
        if other is None or mine.shape != other.shape or not torch.equal(_bits(mine), _bits(other)):
            raise SilentDifference(f"{name} is not what another reader finds there")
    if raw.config is not None and (path / "config.json").exists():
        text = (path / "config.json").read_bytes()
        if raw.config != json.loads(text.decode(json.detect_encoding(text))):
            raise SilentDifference("config.json says something else")
    load_checkpoint(path)


def _bits(tensor: Tensor) -> Tensor:
    return torch.empty(0) if tensor.numel() == 0 else tensor.contiguous().reshape(-1).view(torch.uint8)


def _independently(path: Path) -> dict[str, Tensor]:
    """The tensors as safetensors' and PyTorch's own readers find them."""
    index = next(iter(path.glob("*.index.json")), None)
    if index is None:
        file = next(f for f in path.iterdir() if f.suffix in (".pt", ".safetensors", ".bin"))
        return _file(file)
    places = json.loads(index.read_text())["weight_map"]
    return {name: _file(index.parent / shard)[name] for name, shard in places.items()}


def _file(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        return safetensors.torch.load_file(file)
    with torch.serialization.safe_globals([argparse.Namespace]):
        value = torch.load(file, weights_only=True, map_location="cpu")
    # Under whatever name a wrapper has them.
    held = [value, *(inner for inner in value.values() if isinstance(inner, dict))]
    return dict(next(tensors for tensors in held if any(isinstance(each, Tensor) for each in tensors.values())))


def _tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=["<unk>", "<eos>"], show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(folder / "tokenizer.json"))


def check_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    ids = JsonTokenizer(path, 300).encode(TEXT)
    other = Tokenizer.from_file(str(path))
    other.no_truncation()
    other.no_padding()
    if ids != other.encode(TEXT).ids:
        raise SilentDifference("the prompt was cut or padded")


def check_bundle(folder: Path) -> None:
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != entry.sha256:
            raise SilentDifference(f"{name} is another file than the manifest says")
    said = json.loads((folder / "manifest.json").read_bytes())
    found = manifest.to_json()
    for name, value in said.items():
        if _stated(found.get(name)) != _stated(value):
            raise SilentDifference(f"the manifest's {name} was read as something else")


def _stated(value: Any) -> Any:
    """Without fields that are null: those may as well be absent."""
    if isinstance(value, dict):
        return {name: _stated(each) for name, each in value.items() if each is not None}
    return [_stated(each) for each in value] if isinstance(value, list) else value


def check_vouched(folder: Path) -> None:
    """A bundle whose maker changed something and vouches for it: every file is read by whoever reads it."""
    file = folder / "manifest.json"
    manifest = parse_manifest(file.read_bytes()) if file.is_file() else read_manifest(folder)
    listed = {name: describe(folder / name) for name in manifest.files if (folder / name).is_file()}
    write_manifest(folder, dataclasses.replace(manifest, files={**manifest.files, **listed}))
    manifest = read_manifest(folder)
    load_golden(folder / GOLDEN, manifest.spec)
    for name in manifest.files:
        if name.endswith(".safetensors"):
            read_tensors(folder / name)
    if manifest.tokenizer is not None:
        load_tokenizer(folder, manifest, manifest.spec.vocab_size)


def subjects(bundle: Path | None) -> dict[str, Subject]:
    """By name; the bundle's only where one is given to start from."""

    def copy_bundle(folder: Path) -> None:
        assert bundle is not None
        for source in bundle.rglob("*"):
            if source.is_file():
                target = folder / source.relative_to(bundle)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())

    def few_files(folder: Path) -> None:
        """The manifest with what of the bundle Python alone reads."""
        assert bundle is not None
        manifest = read_manifest(bundle)
        kept = {name: entry for name, entry in manifest.files.items() if name == GOLDEN or "token" in name}
        for name in kept:
            (folder / name).write_bytes((bundle / name).read_bytes())
        few = dataclasses.replace(manifest, files=kept, targets=())
        write_manifest(folder, few)

    found = {
        "training": Subject(_training, check_checkpoint),
        "old training": Subject(lambda f: _training(f, _use_new_zipfile_serialization=False), check_checkpoint),
        "safetensors": Subject(_single, check_checkpoint),
        "bin": Subject(_bin, check_checkpoint),
        "shards": Subject(lambda f: _shards(f, "model", "safetensors", safetensors.torch.save_file), check_checkpoint),
        "bin shards": Subject(lambda f: _shards(f, "pytorch_model", "bin", torch.save), check_checkpoint),
        "hub cache": Subject(_hub_cache, check_checkpoint),
        **{name: _family(f"{name}_prefill") for name in ("ouro", "huginn", "parcae")},
        "tokenizer": Subject(_tokenizer, check_tokenizer),
    }
    if bundle is None:
        return found
    return found | {"bundle": Subject(copy_bundle, check_bundle), "vouched": Subject(few_files, check_vouched)}
