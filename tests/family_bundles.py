"""Bundles of the families' golden checkpoints, made as an export makes them, but for the verification, when a test
first asks for one; and with a tokenizer, for those that speak."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock
from golden_families import GoldenCase

from mythos_export.capture import capture, capture_rows
from mythos_export.lower import lower, lower_rows
from mythos_export.package import package
from mythos_export.progress import silent
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions, build
from mythos_export.text_files import add_text
from mythos_export.weights_file import write_weights
from mythos_model import load_checkpoint
from mythos_runtime.files import describe
from mythos_runtime.program import WEIGHTS

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0 to 2
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


class FamilyBundles(dict[str, Path]):
    """Bundles by the name of their golden case, in a folder that the processes of one test run share."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> Path:
        path = self.folder / name
        with FileLock(self.folder / f"{name}.lock"):
            if not path.exists():
                partial = self.folder / f"{name}.partial"
                partial.mkdir()
                _make(GoldenCase.load(name), partial)
                partial.rename(path)
        self[name] = path
        return path

    def speaking(self, name: str, folder: Path) -> Path:
        """A copy with what a checkpoint's folder brings for text: a tokenizer of words, and a template that ends an
        answer with id 2 where config.json says 0, as Ouro's do."""
        home = folder / "home"
        home.mkdir(parents=True)
        _write_text_files(home)
        bundle = shutil.copytree(self[name], folder / "bundle")
        entry = add_text(bundle, home, 64)
        assert entry is not None
        manifest = json.loads((bundle / "manifest.json").read_text())
        manifest["tokenizer"] = entry.to_json()
        for file in ("tokenizer.json", entry.chat_template or ""):
            manifest["files"][file] = vars(describe(bundle / file))
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        return bundle


def _make(case: GoldenCase, folder: Path) -> None:
    checkpoint = load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule)
    structure = checkpoint.family.model.structure(checkpoint.config, torch.float32)
    weights = write_weights(structure, checkpoint.sources, folder / WEIGHTS)
    captured, rows = capture(weights.model), capture_rows(weights.model)
    lowered = lower(captured, weights)
    if rows is not None:
        lowered = replace(lowered, rows=lower_rows(rows, weights))
    built = build(lowered, folder, find_target("onnx"), TargetOptions("fp32"), silent)
    package(folder, checkpoint, "fp32", captured, weights, built).finish()


def _write_text_files(home: Path) -> None:
    import tokenizers

    names = [*SPECIAL, "user", "assistant", "why", "is", "the", "sky", "blue", "?"]
    words = {word: number for number, word in enumerate(names)}
    words |= {f"word{number}": number for number in range(len(names), 64)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="word63"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(home / "tokenizer.json"))
    (home / "config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}))
    about = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
    (home / "tokenizer_config.json").write_text(json.dumps(about))
