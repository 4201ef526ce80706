"""Forms of files and folders: what people have is read, what cannot be is named for what it is."""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import os
import pathlib
import random
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mythos_model.checkpoint import read_checkpoint
from mythos_model.errors import ModelError

STATE = {f"{name}.weight": torch.arange(12.0).reshape(3, 4) + i for i, name in enumerate(("embed", "a.b", "norm", "c"))}


def same(tensors: Any, expected: dict[str, Tensor] = STATE) -> bool:
    return set(tensors) == set(expected) and all(torch.equal(tensors[name], t) for name, t in expected.items())


def refusal(path: Path, weights_key: str | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path, weights_key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shards(folder: Path, ending: str, state: dict[str, Tensor] = STATE) -> Path:
    """The state in two files with an index, as hubs have it."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    places = {name: names[i % 2] for i, name in enumerate(state)}
    folder.mkdir(parents=True, exist_ok=True)
    for shard in names:
        part = {name: tensor for name, tensor in state.items() if places[name] == shard}
        (save_file if ending == "safetensors" else torch.save)(part, folder / shard)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def test_folders_as_hubs_and_training_scripts_write_them(tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    save_file(STATE, folder("single") / "model.safetensors")
    shards(tmp_path / "shards", "safetensors")
    shards(tmp_path / "bin_shards", "bin")
    for name in ("pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth", "step_0000010.pt"):
        torch.save(STATE, folder(name.replace(".", "_")) / name)
    torch.save({}, tmp_path / "step_0000010_pt" / "optimizer.pt")
    formats = {}
    for path in tmp_path.iterdir():
        raw = read_checkpoint(path)
        assert same(raw.tensors), path
        assert raw.folder == path and raw.beside("tokenizer.json") is None
        formats[path.name] = raw.format
    assert (formats["single"], formats["shards"]) == ("safetensors", "sharded safetensors")
    assert (formats["model_pt"], formats["bin_shards"]) == ("state dict", "sharded state dict")
    assert same(read_checkpoint(tmp_path / "shards" / "model.safetensors.index.json").tensors)


def test_two_checkpoints_in_a_folder_are_both_named(tmp_path: Path) -> None:
    index = shards(tmp_path / "both", "safetensors")
    save_file(STATE, tmp_path / "both" / "model.safetensors")
    assert "model.safetensors and model.safetensors.index.json" in refusal(tmp_path / "both")
    assert same(read_checkpoint(index).tensors)
    assert "one of several shards" in refusal(index.parent / "model-00001-of-00002.safetensors")
    (tmp_path / "steps").mkdir()
    for step in (10, 20):
        torch.save(STATE, tmp_path / "steps" / f"step_{step}.pt")
    assert "step_10.pt, step_20.pt" in refusal(tmp_path / "steps")
    (tmp_path / "formats").mkdir()
    save_file(STATE, tmp_path / "formats" / "model.safetensors")
    torch.save({"x.y": torch.ones(1)}, tmp_path / "formats" / "pytorch_model.bin")
    raw = read_checkpoint(tmp_path / "formats")
    assert same(raw.tensors) and "model.safetensors is read" in raw.notes[0]


def test_folders_of_other_forms_say_how_to_convert_them(tmp_path: Path) -> None:
    for number, (names, said) in enumerate(
        {
            ("__0_0.distcp", ".metadata"): "format_utils dcp_to_torch",
            ("zero_to_fp32.py", "latest"): "deepspeed.utils.zero_to_fp32",
            ("adapter_config.json", "adapter_model.safetensors"): "merge_and_unload",
            ("manifest.json", "model.onnx"): "already",
            ("consolidated.00.pth", "consolidated.01.pth"): "2 parts",
            ("model.gguf",): "GGUF",
            ("README.md",): "found README.md",
            (): "it is empty",
        }.items()
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        assert said in refusal(folder), names
    (tmp_path / "run" / "checkpoint-500").mkdir(parents=True)
    save_file(STATE, tmp_path / "run" / "checkpoint-500" / "model.safetensors")
    assert "checkpoint-500" in refusal(tmp_path / "run")


def test_the_index_says_where_a_tensor_is(tmp_path: Path) -> None:
    index = shards(tmp_path, "safetensors")
    first, second = (tmp_path / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    stale = {"a.b.weight": torch.full((3, 4), 99.0), "left.over": torch.ones(1)}
    save_file({n: STATE[n] for n in ("embed.weight", "norm.weight")} | stale, first)
    raw = read_checkpoint(tmp_path)
    assert same(raw.tensors) and "a.b.weight, left.over" in raw.notes[0]
    save_file({"c.weight": STATE["c.weight"]}, second)
    assert "lacks tensors" in refusal(tmp_path) and "a.b.weight" in refusal(tmp_path)
    second.unlink()
    assert second.name in refusal(tmp_path)
    for odd in ("../x", "/etc/passwd", "", "a\0b", "x" * 5000, ".", 7, None, ["a"], "\ud800"):
        index.write_text(json.dumps({"weight_map": {"embed.weight": odd}}))
        refusal(tmp_path)
    for text in ("[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "b", "a": "c"}}', "[" * 100_000, "nul"):
        index.write_text(text)
        refusal(tmp_path)


def test_what_lies_beside_the_weights_is_inert(tmp_path: Path) -> None:
    beside = {
        "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("/a"), when=collections.Counter("ab")),
        "best": np.float64(0.5),
        "losses": np.arange(5.0),
        "table": collections.defaultdict(list, {"a": [1]}),
        "space": types.SimpleNamespace(x=1),
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.get_state(), "python": random.getstate()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1.0}]},
        "adam": {"state": {"a.b": {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "loss": torch.tensor(2.5),
        "path": tmp_path,
        "keys": {1: 2, (1, 2): 3, None: 4},
        "kinds": {1, 2},
        "dtype": torch.bfloat16,
    }
    for protocol, new in ((2, True), (5, True), (2, False)):
        torch.save(
            {"model": collections.OrderedDict(STATE), "step": 3} | beside,
            tmp_path / "c.pt",
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=new,
        )
        raw = read_checkpoint(tmp_path / "c.pt")
        assert same(raw.tensors) and raw.format == "training checkpoint" and raw.config is None
        assert not raw.examine(list(STATE)).problems


def test_configurations_in_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": STATE, "cfg": argparse.Namespace(dim=np.int64(4), inner=[torch.float32])}, tmp_path / "a.pt")
    raw = read_checkpoint(tmp_path / "a.pt")
    assert raw.config == {"dim": 4, "inner": ["torch.float32"]} and type(raw.config["dim"]) is int
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"dim": 32.0, "eos_token_id": null}')
    assert "configuration is the one in a.pt" in " ".join(read_checkpoint(tmp_path / "a.pt").notes)
    torch.save(STATE, tmp_path / "b.pt")
    assert read_checkpoint(tmp_path / "b.pt").config == {"dim": 32.0, "eos_token_id": None}
    torch.save({"model": STATE, "cfg": {"dim": 1}, "config": {"dim": 2}}, tmp_path / "two.pt")
    assert "cfg and config" in refusal(tmp_path / "two.pt")
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    assert "gptq" in refusal(tmp_path / "b.pt")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[1]", "[" * 10**5, '{"a": ' + "9" * 400 + "}", '{"a":' * 40 + "1" + "}" * 40, "\xff{"]
)
def test_a_config_that_can_be_read_in_two_ways_or_none(tmp_path: Path, text: str) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    refusal(tmp_path)


def test_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    kinds = {
        pointer: "git lfs pull",
        b"GGUF\3\0\0\0": "GGUF",
        b"<!DOCTYPE html><html>": "web page",
        b"<?xml version='1.0'?><Error>": "XML",
        b'{"a": 1}': "JSON",
        b"these are not tensors": "a text file",
        gzip.compress(b"x"): "gzip",
        bytes(4096): "zeros",
        b"\x89HDF\r\n\x1a\n": "HDF5",
        b"\x80\x04N.": "not one that torch.save wrote",
        b"\x93NUMPY\x01\x00": "numpy",
        b"\xff\xfe\xfc\0n": "expected a .pt or .safetensors",
    }
    for content, said in kinds.items():
        for name in ("model.pt", "model.safetensors"):
            (tmp_path / name).write_bytes(content)
            assert said in refusal(tmp_path / name), (content, name)
    with zipfile.ZipFile(tmp_path / "z.pt", "w") as archive:
        archive.writestr("a.txt", "text")
    assert "torch.save did not write" in refusal(tmp_path / "z.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    assert "model.state_dict()" in refusal(tmp_path / "module.pt")
    for value in (torch.ones(2), [torch.ones(2)], {"model": {}}, 5):
        torch.save(value, tmp_path / "odd.pt")
        assert "holds no weights" in refusal(tmp_path / "odd.pt")


def test_links_are_followed_only_inside(tmp_path: Path) -> None:
    cache = tmp_path / "models--owner--name"
    snapshot = cache / "snapshots" / "abc"
    index = shards(snapshot, "safetensors")
    (cache / "blobs").mkdir()
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(cache / "blobs" / str(number))
        file.symlink_to(f"../../blobs/{number}")
    assert same(read_checkpoint(snapshot).tensors) and same(read_checkpoint(index).tensors)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    assert read_checkpoint(cache).folder == snapshot
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (snapshot / "config.json").symlink_to(secret)
    assert "outside the folder" in refusal(snapshot)

    folder = tmp_path / "plain"
    folder.mkdir()
    os.link(cache / "blobs" / "0", folder / "model.safetensors")
    (folder / "latest").symlink_to("model.safetensors")
    read_checkpoint(folder)
    read_checkpoint(folder / "latest")  # the user named it
    (folder / "model.safetensors").unlink()
    for target in ("../models--owner--name/blobs/0", "nowhere", "model.safetensors"):  # outside, broken, a loop
        (folder / "model.safetensors").symlink_to(target)
        refusal(folder)
        (folder / "model.safetensors").unlink()


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    for name in ("config.json", "model.safetensors.index.json", "model.safetensors"):
        kept = tmp_path / name
        content = kept.read_bytes() if kept.exists() else None
        kept.unlink(missing_ok=True)
        os.mkfifo(kept)
        assert "named pipe" in refusal(tmp_path)
        kept.unlink()
        kept.symlink_to("/dev/zero")
        refusal(tmp_path)
        kept.unlink()
        if content:
            kept.write_bytes(content)
    assert same(read_checkpoint(tmp_path).tensors)
    for path in ("/dev/zero", tmp_path / "x\0y", "x" * 5000, tmp_path / "absent.pt"):
        refusal(Path(path))


def test_a_config_beside_one_file_is_read_in_bounds(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "m.safetensors")
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    assert "at most" in refusal(tmp_path / "m.safetensors")
