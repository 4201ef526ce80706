"""What a bundle takes from the files that are beside a model's weights, and which of them it believes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mythos_export.errors import PackageError
from mythos_export.text_files import add_text
from mythos_runtime import RequestError
from mythos_runtime.tokenizer_entry import TokenizerEntry

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0 to 2
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A model's folder with a ChatML tokenizer.json of five tokens."""
    folder = tmp_path / "model"
    folder.mkdir()
    words = {word: number for number, word in enumerate([*SPECIAL, "a", "b"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def write(home: Path, **files: Any) -> None:
    for name, value in files.items():
        (home / f"{name}.json").write_text(json.dumps(value))


def add(home: Path, vocab_size: int = 5, **options: Any) -> TokenizerEntry | None:
    bundle = home.parent / "bundle"
    bundle.mkdir(exist_ok=True)
    return add_text(bundle, home, vocab_size, **options)


def test_a_folder_that_says_wrong_ends_in_its_config(home: Path) -> None:
    """Ouro's: config.json has 0 for all, a chat ends with <|im_end|>."""
    write(
        home,
        config={"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0},
        tokenizer_config={"chat_template": CHATML, "eos_token": {"content": "<|im_end|>"}, "add_bos_token": False},
        special_tokens_map={"bos_token": "<|im_start|>", "eos_token": "<|endoftext|>"},
    )
    entry = add(home)
    assert entry is not None
    assert (entry.kind, entry.file, entry.eos, entry.bos) == ("tokenizer.json", "tokenizer.json", (2,), 1)
    assert entry.special_tokens == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert entry.sources == {
        "file": "tokenizer.json",
        "chat_template": "tokenizer_config.json",
        "eos": "2 from the tokenizer's eos_token and the end of an answer in the chat template; not config.json's 0",
        "bos": "the tokenizer's bos_token",
    }
    bundle = home.parent / "bundle"
    assert (bundle / str(entry.chat_template)).read_text() == CHATML
    assert (bundle / "tokenizer.json").read_bytes() == (home / "tokenizer.json").read_bytes()


def test_generation_config_decides_and_the_template_adds_its_end(home: Path) -> None:
    write(home, generation_config={"eos_token_id": [0, 4.0], "bos_token_id": 1, "pad_token_id": None}, config={})
    (home / "chat_template.jinja").write_text("\ufeff" + CHATML)
    entry = add(home)
    assert entry is not None
    assert (entry.eos, entry.bos) == ((0, 4, 2), 1)
    assert entry.sources["chat_template"] == "chat_template.jinja"
    assert entry.sources["eos"] == "0, 4 from generation_config.json; 2 from the end of an answer in the chat template"
    assert (home.parent / "bundle" / "chat_template.jinja").read_text() == CHATML


def test_the_command_line_decides_over_all(home: Path, tmp_path: Path) -> None:
    write(home, generation_config={"eos_token_id": 0})
    assert add(home, eos=[3, 1, 3]) == TokenizerEntry(
        "tokenizer.json", "tokenizer.json", eos=(3, 1), sources={"file": "tokenizer.json", "eos": "--eos"}
    )
    nothing = tmp_path / "weights alone"
    nothing.mkdir()
    assert add(nothing) is None
    sources = {"eos": "0 from generation_config.json"}
    elsewhere = TokenizerEntry("tokenizer.json", "tokenizer.json", (0,), sources={"file": "--tokenizer", **sources})
    assert add(nothing, tokenizer=home) == elsewhere
    assert add(home, tokenizer="none") == TokenizerEntry("ids", eos=(0,), sources=sources)
    assert add(nothing, 256, tokenizer="bytes", eos=[9]) == TokenizerEntry("bytes", eos=(9,), sources={"eos": "--eos"})


def test_config_is_believed_where_nothing_else_speaks(home: Path) -> None:
    write(home, config={"eos_token_id": 0, "bos_token_id": 1})
    entry = add(home)
    assert entry is not None
    assert (entry.eos, entry.bos, entry.sources["eos"]) == ((0,), 1, "0 from config.json")


def test_a_template_that_cannot_be_tried_is_carried_all_the_same(home: Path) -> None:
    templates = [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ raise_exception('no') }}"}]
    write(home, tokenizer_config={"chat_template": templates})
    entry = add(home)
    assert entry is not None
    assert (entry.eos, entry.chat_template) == ((), "chat_template.jinja")
    assert entry.sources["chat_template"].startswith("tokenizer_config.json, default of 2; its end of an answer is not")


@pytest.mark.parametrize(
    ("generation", "defaults"),
    [
        ({"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"do_sample": True, "top_k": 50.0, "min_p": None}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "temperature": 0.7, "max_new_tokens": 99}, {"temperature": 0.7, "max_new_tokens": 99}),
    ],
)
def test_defaults_of_a_generation(home: Path, generation: dict[str, Any], defaults: dict[str, float]) -> None:
    write(home, generation_config=generation)
    entry = add(home)
    assert entry is not None
    assert entry.defaults == defaults


def test_a_tokenizer_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.model").touch()
    entry = add(tmp_path / "model")
    assert entry is not None
    assert entry.sources["file"].startswith("none: tokenizer.model is there, but no tokenizer.json")


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, {"eos": [5]}, r"EOS id 5 \(--eos\) is not of this model's vocabulary, which has the ids 0 to 4"),
        ({"generation_config": {"eos_token_id": 9}}, {}, "EOS id 9 .*; name the ids with --eos"),
        ({"generation_config": {"eos_token_id": "2"}}, {}, "an id or a list of ids, found '2'"),
        ({"generation_config": {"do_sample": True, "temperature": -1}}, {}, "temperature should not be negative"),
        ({"generation_config": [1]}, {}, "should hold a JSON object"),
        ({"tokenizer_config": {"chat_template": 3}}, {}, "should be text"),
        ({}, {"tokenizer": "absent.json"}, "there is no tokenizer absent.json"),
    ],
)
def test_what_cannot_be_is_one_line(home: Path, files: dict[str, Any], options: dict[str, Any], words: str) -> None:
    write(home, **files)
    with pytest.raises(PackageError, match=words):
        add(home, **options)


def test_another_model_s_tokenizer_is_refused(home: Path) -> None:
    with pytest.raises(RequestError, match="another model's"):
        add(home, 4)
