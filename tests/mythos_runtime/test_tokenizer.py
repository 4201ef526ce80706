"""Text to ids and back, whole and as a stream; and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from text_bundles import EOS, byte_level

from mythos_runtime import BundleError, RequestError
from mythos_runtime.fields import Fields
from mythos_runtime.tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer
from mythos_runtime.tokenizer_entry import TokenizerEntry, read_tokenizer

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")


def byte_fallback(path: Path) -> Path:
    """A Llama-like tokenizer.json, whose decoder reads neighbouring bytes together."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "A": 257, "▁": 258}
    model = tokenizers.models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module", params=["bytes", "tokenizer.json"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "bytes":
        return ByteTokenizer(256)
    return JsonTokenizer(byte_level(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"), 257)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> str:
    stream = tokenizer.stream()
    return "".join([stream.feed(token) for token in ids] + [stream.finish()])


@given(text=st.text(max_size=40))
def test_a_text_is_its_own_tokens_whatever_its_length(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, special=False)
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text == streamed(tokenizer, ids)


def test_what_the_post_processor_adds_is_added_to_a_text_and_not_to_a_conversation(tmp_path: Path) -> None:
    tokenizer = JsonTokenizer(byte_level(tmp_path / "tokenizer.json"), 300)
    assert tokenizer.encode("x" * 20) == [EOS, *tokenizer.encode("x" * 20, special=False)]
    assert tokenizer.encode("<|end|>", special=False) == [EOS]
    assert tokenizer.decode([EOS, 64, 299]) == tokenizer.decode([64])


@given(ids=st.lists(st.integers(0, 300), max_size=30))
def test_any_ids_stream_as_they_decode(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert streamed(tokenizer, ids) == tokenizer.decode(ids)


def test_a_character_is_shown_once_it_is_whole_and_the_rest_of_one_at_the_end(tokenizer: Tokenizer) -> None:
    stream, ids = tokenizer.stream(), tokenizer.encode("a€b", special=False)
    assert [stream.feed(token) for token in ids] == ["a", "", "", "€", "b"]
    assert [stream.feed(token) for token in ids[1:3]] == ["", ""]
    assert (stream.finish(), stream.finish(), stream.feed(ids[0])) == ("\ufffd", "", "a")


@given(ids=st.lists(st.integers(129, 257), max_size=30))  # bytes that begin or go on with a character, and A
def test_broken_bytes_never_end_a_stream(fallback: JsonTokenizer, ids: list[int]) -> None:
    assert streamed(fallback, ids).count("A") == fallback.decode(ids).count("A") == ids.count(257)


@pytest.fixture(scope="module")
def fallback(tmp_path_factory: pytest.TempPathFactory) -> JsonTokenizer:
    return JsonTokenizer(byte_fallback(tmp_path_factory.mktemp("fallback") / "tokenizer.json"), 259)


def test_a_stream_holds_back_little_and_forgets_the_rest(fallback: JsonTokenizer) -> None:
    """Constant time per token: what is decoded again never grows."""
    lengths: list[int] = []

    class Counting(JsonTokenizer):
        def __init__(self) -> None:
            self.__dict__.update(fallback.__dict__)

        def decode(self, ids: list[int]) -> str:  # type: ignore[override]
            lengths.append(len(ids))
            return super().decode(ids)

    stream = Counting().stream()
    text = "".join(stream.feed(token) for token in [0x81] * 1000)  # never a character
    assert text.count("\ufffd") > 900
    assert max(lengths) <= 64


@pytest.mark.parametrize(("text", "words"), [("abc\udcff", "byte 0xff at 3"), ("é\ud800", "surrogate 0xd800 at 2")])
def test_what_is_no_utf8_is_refused(tokenizer: Tokenizer, text: str, words: str) -> None:
    with pytest.raises(RequestError, match=f"the prompt is not UTF-8: .*{words}"):
        tokenizer.encode(text)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="ids up to 256, the model's vocabulary ends at 255"):
        JsonTokenizer(byte_level(tmp_path / "tokenizer.json"), 256)


def test_the_entry_is_read_back_as_it_was_written() -> None:
    for entry in (
        TokenizerEntry("bytes"),
        TokenizerEntry("ids", eos=(2, 0)),
        TokenizerEntry(
            "tokenizer.json",
            "tokenizer.json",
            eos=(65505, 65508),
            bos=0,
            chat_template="chat_template.jinja",
            special_tokens={"bos_token": "<s>"},
            defaults={"temperature": 0.7, "top_k": 5},
            sources={"eos": "generation_config.json"},
        ),
    ):
        found = read_tokenizer(Fields({"tokenizer": entry.to_json()}, "m"), {"tokenizer.json", "chat_template.jinja"})
        assert found == entry


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "bytes", "file": "x"}, "null for the kind bytes"),
        ({"kind": "tokenizer.json", "file": "x"}, "field files has too"),
        ({"kind": "bytes", "file": None, "chat_template": "x"}, "field files has too"),
        ({"kind": "ids", "eos": [-1]}, "a list of ids"),
        ({"kind": "ids", "eos": None}, "a list"),
        ({"kind": "ids", "bos": "1"}, "an integer"),
        ({"kind": "ids", "special_tokens": {"bos_token": 1}}, "an object of texts"),
        ({"kind": "ids", "defaults": {"temperature": "1"}}, "a number"),
        ({"kind": "ids", "defaults": {"beams": 1}}, "unknown"),
        ({"kind": "ids", "pad": 1}, "unknown"),
    ],
)
def test_a_wrong_entry_is_one_sentence(fields: dict[str, object], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_tokenizer(Fields({"tokenizer": fields}, "manifest.json"), {})
