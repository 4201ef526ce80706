"""What a bundle takes of a model's text: tokenizer, ends, chat template, defaults, from the files beside the weights.

A folder as the hub has it says the same thing in several places, which often disagree. What is taken, first found
first, and the manifest records it (`sources`):

    tokenizer      --tokenizer; tokenizer.json beside the weights
    chat template  chat_template.jinja; tokenizer_config.json
    EOS            --eos; else all of: generation_config.json's, or where it has none the tokenizer's eos_token; and the
                   token with which the chat template closes an answer. config.json's only where none of these is there:
                   published models have an eos_token_id there that their chats never write.
    BOS            generation_config.json, the tokenizer's bos_token, config.json
    defaults       generation_config.json; temperature, top_k, top_p and min_p only where it says do_sample
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mythos_export.errors import PackageError
from mythos_runtime.chat import render
from mythos_runtime.errors import RequestError, RuntimeBundleError
from mythos_runtime.sampling import SamplingOptions
from mythos_runtime.tokenizer import ByteTokenizer, JsonTokenizer
from mythos_runtime.tokenizer_entry import BYTES, IDS, JSON, TokenizerEntry

NONE = "none"
TEMPLATE = "chat_template.jinja"
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_OTHER_FORMS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")  # of tokenizers without a tokenizer.json


def add_text(
    bundle: Path,
    checkpoint: Path,
    vocab_size: int,
    tokenizer: str | Path | None = None,
    eos: Sequence[int] | None = None,
) -> TokenizerEntry | None:
    """Copy what belongs to text into the folder `bundle`, and return the manifest's entry; None where there is nothing.

    Args:
        checkpoint: the model's file or folder; what is beside the weights is read.
        tokenizer: "bytes", "none", a tokenizer.json, or a folder with one; None: the one beside the weights.
        eos: ids that end a generation, instead of those that the files name.

    Raises:
        PackageError: a file cannot be read or says what cannot be, or an id is beyond the vocabulary.
        Others of the runtime's errors, where the tokenizer cannot be used.
    """
    home = checkpoint if checkpoint.is_dir() else checkpoint.parent
    kind, file = _tokenizer_file(home, tokenizer)
    words = home if file is None else file.parent
    generation = _read(home / "generation_config.json") or _read(words / "generation_config.json")
    config = _read(home / "config.json")
    about = _read(words / "special_tokens_map.json") | _read(words / "tokenizer_config.json") if file else {}
    sources: dict[str, str] = {}
    special, template, reader = {}, None, None
    if file is not None:
        reader = JsonTokenizer(file, vocab_size)
        shutil.copyfile(file, bundle / "tokenizer.json")
        sources["file"] = file.name if tokenizer is None else "--tokenizer"
        special = {name: text for name, value in about.items() if name.endswith("_token") and (text := _token(value))}
        template = _template(words, about, sources)
        if template is not None:
            (bundle / TEMPLATE).write_text(template, encoding="utf-8")
    elif kind == BYTES:
        ByteTokenizer(vocab_size)
    elif tokenizer is None and (other := next((name for name in _OTHER_FORMS if (home / name).is_file()), None)):
        sources["file"] = (
            f"none: {other} is there, but no tokenizer.json; AutoTokenizer.save_pretrained of transformers writes one"
        )
    if eos is not None:
        ends = tuple(dict.fromkeys(eos))
        sources["eos"] = "--eos"
    else:
        ends = _ends(generation, config, special, template, reader, sources)
    begins = _begin(generation, config, special, reader, sources)
    for name, value in [*(("EOS", end) for end in ends), ("BOS", begins)]:
        if value is not None and not 0 <= value < vocab_size:
            source = sources[name.lower()]
            raise PackageError(
                f"the {name} id {value} ({source}) is not of this model's vocabulary, which has the ids 0 to "
                f"{vocab_size - 1}" + ("; name the ids with --eos" if name == "EOS" and eos is None else "")
            )
    entry = TokenizerEntry(
        kind,
        None if file is None else "tokenizer.json",
        eos=ends,
        bos=begins,
        chat_template=None if template is None else TEMPLATE,
        special_tokens=special,
        defaults=_defaults(generation, sources),
        sources=sources,
    )
    return None if entry == TokenizerEntry(IDS) else entry


def _tokenizer_file(home: Path, tokenizer: str | Path | None) -> tuple[str, Path | None]:
    """The kind of tokenizer, and its file where it has one."""
    if tokenizer is None:
        found = home / "tokenizer.json"
        return (JSON, found) if found.is_file() else (IDS, None)
    if str(tokenizer) in (BYTES, NONE):
        return (BYTES if str(tokenizer) == BYTES else IDS), None
    file = Path(tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    if not file.is_file():
        raise PackageError(
            f"there is no tokenizer {file}; --tokenizer takes a tokenizer.json, the folder with it, 'bytes', or 'none'"
        )
    return JSON, file


def _read(path: Path) -> dict[str, Any]:
    """A JSON object without its nulls; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_bytes().decode("utf-8-sig"))  # a BOM is no content
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise PackageError(f"{path} should hold a JSON object, not a {type(values).__name__}")
    return {name: value for name, value in values.items() if value is not None}


def _token(value: Any) -> str | None:
    """The text of a token, which is stored as such or as an object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) and content else None


def _template(folder: Path, about: Mapping[str, Any], sources: dict[str, str]) -> str | None:
    file = folder / TEMPLATE
    if file.is_file():
        sources["chat_template"] = TEMPLATE
        try:
            return file.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise PackageError(f"{file} cannot be read: {error}") from error
    template, source = about.get("chat_template"), "tokenizer_config.json"
    if isinstance(template, list):  # several under names: the one for plain conversations
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template, source = named.get("default"), f"{source}, default of {len(named)}"
    if template is None:
        return None
    if not isinstance(template, str):
        raise PackageError(f"the chat_template in {folder / 'tokenizer_config.json'} should be text")
    sources["chat_template"] = source
    return template


def _ends(
    generation: Mapping[str, Any],
    config: Mapping[str, Any],
    special: Mapping[str, str],
    template: str | None,
    reader: JsonTokenizer | None,
    sources: dict[str, str],
) -> tuple[int, ...]:
    """The ids that end a generation, in the order found; which file each is from goes into `sources`."""
    found: list[tuple[int, str]] = [
        (number, "generation_config.json") for number in _ids(generation, "eos_token_id", "generation_config.json")
    ]
    if not found and reader is not None and (own := reader.id_of(special.get("eos_token", ""))) is not None:
        found.append((own, "the tokenizer's eos_token"))
    if template is not None and reader is not None:
        closing = _closing(template, special, reader, sources)
        if closing is not None:
            found.append((closing, "the end of an answer in the chat template"))
    weakest = _ids(config, "eos_token_id", "config.json")
    if not found:
        found = [(number, "config.json") for number in weakest]
    by_id: dict[int, list[str]] = {}
    for number, source in found:
        by_id.setdefault(number, []).append(source)
    by_source: dict[str, list[int]] = {}
    for number, names in by_id.items():
        by_source.setdefault(" and ".join(names), []).append(number)
    texts = [f"{', '.join(map(str, numbers))} from {source}" for source, numbers in by_source.items()]
    if passed := [number for number in weakest if number not in by_id]:
        texts.append(f"not config.json's {', '.join(map(str, passed))}")
    if texts:
        sources["eos"] = "; ".join(texts)
    return tuple(by_id)


def _closing(template: str, special: Mapping[str, str], reader: JsonTokenizer, sources: dict[str, str]) -> int | None:
    """The id of the special token with which the template closes an answer."""
    question, answer = "a question", "the answer"
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    try:
        text = render(template, messages, special, answer_begins=False)
    except RuntimeBundleError as error:
        sources["chat_template"] += f"; its end of an answer is not known: {error}"
        return None
    after = text.rpartition(answer)[2].lstrip() if answer in text else ""
    known = reader.special_texts()
    token = max((token for token in known if after.startswith(token)), key=len, default=None)
    return None if token is None else known[token]


def _begin(
    generation: Mapping[str, Any],
    config: Mapping[str, Any],
    special: Mapping[str, str],
    reader: JsonTokenizer | None,
    sources: dict[str, str],
) -> int | None:
    found = [
        (number, "generation_config.json") for number in _ids(generation, "bos_token_id", "generation_config.json")
    ]
    if reader is not None and (own := reader.id_of(special.get("bos_token", ""))) is not None:
        found.append((own, "the tokenizer's bos_token"))
    found += [(number, "config.json") for number in _ids(config, "bos_token_id", "config.json")]
    if not found:
        return None
    sources["bos"] = found[0][1]
    return found[0][0]


def _ids(values: Mapping[str, Any], name: str, file: str) -> list[int]:
    """One id or several; a whole number written as 2.0 is one."""
    value = values.get(name)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    whole = [int(item) for item in listed if _is_whole(item)]
    if len(whole) != len(listed):
        raise PackageError(f"{file}: {name} should be an id or a list of ids, found {value!r}")
    return whole


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer() or isinstance(value, int) and not isinstance(value, bool)


def _defaults(generation: Mapping[str, Any], sources: dict[str, str]) -> dict[str, float]:
    """How to generate where nobody says otherwise."""
    names = ("repetition_penalty", "max_new_tokens", *(_SAMPLING if generation.get("do_sample") else ()))
    given = {name: generation[name] for name in names if name in generation}
    if generation.get("do_sample"):
        given.setdefault("temperature", 1.0)
    for name, value in given.items():
        if name in ("top_k", "max_new_tokens"):
            given[name] = int(value) if _is_whole(value) else value
    try:
        SamplingOptions(**{name: value for name, value in given.items() if name != "max_new_tokens"})
        if not isinstance(given.get("max_new_tokens", 1), int) or given.get("max_new_tokens", 1) < 1:
            raise RequestError(f"max_new_tokens should be a positive integer, found {given['max_new_tokens']!r}")
    except RequestError as error:
        raise PackageError(f"generation_config.json: {error}") from error
    if given:
        sources["defaults"] = "generation_config.json"
    return given
