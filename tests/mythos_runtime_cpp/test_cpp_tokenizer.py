"""A tokenizer.json in C++: the ids and the text of the Python package, over texts that were made to differ."""

from __future__ import annotations

import ctypes as c
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cpp_programs import BUILD, ROOT, RUN, cpp, needs_cpp
from hypothesis import example, given, settings
from hypothesis import strategies as st
from text_bundles import byte_level, hub_folder, with_tokenizer

from mythos_export import export
from mythos_runtime import RequestError, load
from mythos_runtime.tokenizer import JsonTokenizer

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")
LIBRARY = ROOT / "build/tokenizer/libmythos_tokenizer.so"
pytestmark = [
    needs_cpp,
    pytest.mark.slow,  # its library takes minutes to build
    pytest.mark.skipif(not LIBRARY.is_file(), reason="libmythos_tokenizer is not built: make tokenizer"),
]
CORPUS = sorted((ROOT / "mythos_model").glob("*.py")) + sorted((ROOT / "mythos_model/families").rglob("*.md"))
VOCABULARY = 600


def gpt(path: Path) -> None:
    """Bytes, the pattern of GPT-2, merges; special tokens with spaces taken in."""
    make, pre = tokenizers.trainers.BpeTrainer, tokenizers.pre_tokenizers
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = pre.ByteLevel(add_prefix_space=True)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.train([str(file) for file in CORPUS], make(vocab_size=500, initial_alphabet=pre.ByteLevel.alphabet()))
    made.add_special_tokens(["<|end|>", tokenizers.AddedToken("<mask>", lstrip=True)])
    made.save(str(path))


def llama3(path: Path) -> None:
    """Another pattern, with look-ahead and classes of Unicode; NFC before it."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    pre = tokenizers.pre_tokenizers
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    made.normalizer = tokenizers.normalizers.NFC()
    made.pre_tokenizer = pre.Sequence(
        [pre.Split(tokenizers.Regex(pattern), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre.ByteLevel.alphabet())
    made.train([str(file) for file in CORPUS], trainer)
    made.add_special_tokens(["<|end|>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", made.token_to_id("<|end|>"))]
    )
    made.enable_truncation(8)
    made.save(str(path))


def unigram(path: Path) -> None:
    """As SentencePiece makes them: NFKC, ▁ for a space, bytes for what is unknown."""
    make = tokenizers.trainers.UnigramTrainer
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.NFKC(), tokenizers.normalizers.Strip()])
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.train([str(file) for file in CORPUS], make(vocab_size=500, unk_token="<unk>", special_tokens=["<unk>"]))
    made.save(str(path))


def bert(path: Path) -> None:
    """WordPiece over lower case without accents."""
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]"]
    made.train(
        [str(file) for file in CORPUS], tokenizers.trainers.WordPieceTrainer(vocab_size=500, special_tokens=special)
    )
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    made.save(str(path))


def fallback(path: Path) -> None:
    """Llama 2's form: a merge or none, and single bytes, which the decoder reads together."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "A": 257, "▁": 258, "▁A": 259}
    model = tokenizers.models.BPE(
        vocab=vocab, merges=[("▁", "A")], byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    made, decoders = tokenizers.Tokenizer(model), tokenizers.decoders
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.save(str(path))


class Native:
    """mythos_encode and mythos_decode of a bundle."""

    def __init__(self, bundle: Path) -> None:
        self._library = c.CDLL(str(BUILD / "libmythos_runtime.so"))
        self._library.mythos_last_error.restype = c.c_char_p
        self._model = c.c_void_p()
        self._call("mythos_load", str(bundle).encode(), None, 1, 1, c.byref(self._model))

    def encode(self, text: str) -> list[int]:
        data, count = text.encode(), c.c_size_t()
        room = len(data) + 16
        ids = (c.c_int64 * room)()
        self._call("mythos_encode", self._model, data, c.c_size_t(len(data)), ids, c.c_size_t(room), c.byref(count))
        assert count.value <= room
        return list(ids[: count.value])

    def decode(self, ids: list[int]) -> str:
        room, count = 64 * len(ids) + 16, c.c_size_t()
        text, given = c.create_string_buffer(room), (c.c_int64 * len(ids))(*ids)
        self._call("mythos_decode", self._model, given, c.c_size_t(len(ids)), text, c.c_size_t(room), c.byref(count))
        assert count.value <= room
        return text.raw[: count.value].decode()

    def _call(self, name: str, *arguments: object) -> None:
        if getattr(self._library, name)(*arguments):
            raise RequestError(self._library.mythos_last_error().decode())


KINDS: dict[str, Callable[[Path], object]] = {
    made.__name__: made for made in (byte_level, gpt, llama3, unigram, bert, fallback)
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with a vocabulary that has room for every tokenizer here."""
    folder = tmp_path_factory.mktemp("wide")
    export(hub_folder(folder / "model", VOCABULARY), folder / "bundle", target="onnx")
    return folder / "bundle"


@pytest.fixture(scope="module", params=list(KINDS))
def speaking(request: pytest.FixtureRequest, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with one of the tokenizers."""
    folder = tmp_path_factory.mktemp(request.param)
    KINDS[request.param](folder / "tokenizer.json")
    return with_tokenizer(wide, folder / "bundle", folder / "tokenizer.json")


WORDS = ["<|end|>", "<mask>", "[SEP]", " ", "\n", "\r\n", "don't", "WE'LL", "é", "e\u0301", "ﬁ", "١٢٣", "1234567",
         "漢字", "\U0001f469\u200d\U0001f467", "\u00a0", "\u200b", "\x00", "▁", "Å", "ß", "İ", "def ", "    ", "loop",
         "ᄀ\u1161"]  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=60), st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=20).map("".join)
)


def test_the_same_ids_and_the_same_text(speaking: Path) -> None:
    native, python = Native(speaking), JsonTokenizer(speaking / "tokenizer.json", VOCABULARY)

    @settings(max_examples=400, deadline=None)
    @example(text="")
    @given(text=TEXTS)
    def hold(text: str) -> None:
        ids = python.encode(text)
        assert native.encode(text) == ids
        assert native.decode(ids) == python.decode(ids)

    hold()

    @settings(max_examples=200, deadline=None)
    @given(ids=st.lists(st.integers(0, VOCABULARY + 40), max_size=30))
    def any_ids(ids: list[int]) -> None:
        assert native.decode(ids) == python.decode(ids)

    any_ids()


def test_the_programs_write_the_same(speaking: Path) -> None:
    """Text in, and what comes out token by token, through characters that are never finished."""
    options = ("--temperature", "1", "--seed", "3", "--max-new-tokens", "24", "--ignore-eos")
    model = load(speaking, op_library=None, engine="python")
    assert model.tokenizer is not None
    prompt = model.tokenizer.encode("A ﬁne loop")
    expected = model.generate_all([prompt], max_new_tokens=24, temperature=1.0, seed=3).tokens[0]
    shown = cpp(RUN, speaking, "--prompt", "A ﬁne loop", *options, "--json")
    assert shown.returncode == 0, shown.stderr
    document = json.loads(shown.stdout.splitlines()[-1])
    assert document["tokens"] == expected
    stream = model.tokenizer.stream()
    assert document["text"] == "".join([stream.feed(token) for token in expected] + [stream.finish()])


def test_what_cannot_be_read_is_said(wide: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"version": "1.0"}')
    bundle = with_tokenizer(wide, tmp_path / "bundle", broken)
    asked = cpp(RUN, bundle, "--prompt", "x")
    assert asked.returncode == 2 and "is not a readable tokenizer.json" in asked.stderr
    nowhere = os.environ | {"MYTHOS_TOKENIZER": "/nowhere", "MYTHOS_OP_LIBRARY": "none"}
    for option, code in (("--ids", 0), ("--prompt", 3)):
        without = cpp(RUN, bundle, option, "1", "--max-new-tokens", "1", env=nowhere)
        assert without.returncode == code and "make tokenizer" in without.stderr
