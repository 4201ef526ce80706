"""Which tensors are the weights, under which names and in which dtype; and nothing wrong with them unsaid."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mythos_model.checkpoint import RawCheckpoint, read_checkpoint
from mythos_model.errors import ModelError

STATE = {f"a.{i}.weight": torch.randn(3, 5) for i in range(6)}


def saved(folder: Path, value: Any, weights_key: str | None = None, form: str = "pt") -> RawCheckpoint:
    path = folder / f"model.{form}"
    torch.save(value, path) if form == "pt" else save_file(value, path)
    return read_checkpoint(path, weights_key)


def refusal(folder: Path, value: Any, weights_key: str | None = None, form: str = "pt") -> str:
    with pytest.raises(ModelError) as caught:
        saved(folder, value, weights_key, form)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(raw: RawCheckpoint, expected: dict[str, Tensor]) -> bool:
    return set(raw.tensors) == set(expected) and all(torch.equal(raw.tensors[n], t) for n, t in expected.items())


def under(prefix: str, state: dict[str, Tensor] = STATE, by: float = 0.0) -> dict[str, Tensor]:
    return {prefix + name: tensor + by for name, tensor in state.items()}


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_wrappers_of_training_are_taken_off_anywhere(tmp_path: Path, form: str) -> None:
    wrapped = {name.replace("a.", "module._orig_mod.a._fsdp_wrapped_module.", 1): t for name, t in STATE.items()}
    wrapped |= {"a._checkpoint_wrapped_module.x": torch.ones(2), "n_averaged": torch.tensor(3)}
    raw = saved(tmp_path, wrapped, form=form)
    assert same(raw, {**STATE, "a.x": torch.ones(2)}) and "n_averaged" in raw.notes[0]
    said = refusal(tmp_path, {**STATE, "module.a.1.weight": torch.ones(3, 5)}, form=form)
    assert "a.1.weight" in said and "module.a.1.weight" in said


def test_common_prefixes_are_offered(tmp_path: Path) -> None:
    raw = saved(tmp_path, under("model.net.") | {"step": torch.tensor(1)})
    assert raw.prefixes == ("", "model.", "model.net.", "model.net.a.")
    assert same(raw.without_prefix("model.net."), {**STATE, "step": torch.tensor(1)})
    assert saved(tmp_path, under("model.") | {"lm_head.weight": torch.ones(2, 2)}).prefixes == ("",)


@pytest.mark.parametrize("form", ["pt", "safetensors"])
@pytest.mark.parametrize("raw", ["", "model."])
def test_raw_and_averaged_weights_side_by_side(tmp_path: Path, form: str, raw: str) -> None:
    both = under(raw) | under("ema.module.", by=1) | {"n_averaged": torch.tensor(3.0)}
    said = refusal(tmp_path, both, form=form)
    assert "--weights-key" in said and "ema" in said and (raw.rstrip(".") or ".") in said
    taken = saved(tmp_path, both, "ema", form)
    assert same(taken, under("", by=1)) and "'ema'" in " ".join(taken.notes)
    assert set(STATE) <= set(saved(tmp_path, both, raw.rstrip(".") or ".", form).tensors)
    assert "nothing" in refusal(tmp_path, both, "nothing", form)


def test_sets_of_weights_under_keys(tmp_path: Path) -> None:
    several = {"model": STATE, "ema": {"shadow": under("", by=1)}, "step": 1, "loss": torch.tensor(1.0)}
    assert "model, ema.shadow" in refusal(tmp_path, several)
    taken = saved(tmp_path, several, "ema.shadow")
    assert same(taken, under("", by=1)) and "'ema.shadow'" in " ".join(taken.notes)
    assert "decay, others" in " ".join(saved(tmp_path, {"model": {**STATE, "decay": 0.9, "others": []}}).notes)
    assert same(saved(tmp_path, {"state": {"model": under("module.")}}), STATE)
    assert "model, ema.shadow" in refusal(tmp_path, several, "absent")


def test_tied_tensors_are_there_under_both_names(tmp_path: Path) -> None:
    tied = {"embed.weight": STATE["a.0.weight"], "head.weight": STATE["a.0.weight"], "t.weight": STATE["a.0.weight"].T}
    raw = saved(tmp_path, tied)
    assert same(raw, tied)
    place = raw.place("embed.weight")
    assert place is not None and raw.place("head.weight") == place and raw.place("t.weight") is None
    data = place[0].read_bytes()[place[1] :][:60]
    assert torch.equal(torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(3, 5), tied["embed.weight"])


def test_dtypes(tmp_path: Path) -> None:
    values = torch.tensor([[0.5, -448.0], [2**-9, 0.0]])
    kinds = {
        str(dtype): values.to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.bool)
    }
    kinds |= {"freqs_cis": torch.polar(values.abs(), values), "w.scale": torch.ones(2), "empty": torch.ones(0, 3)}
    for form in ("pt", "safetensors"):
        assert same(saved(tmp_path, kinds, form=form), kinds)
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            eight = values.to(dtype)
            raw = saved(
                tmp_path, kinds | {"w.weight": eight} if False else {"w.weight": eight, "x.y": values}, form=form
            )
            assert raw.dtypes["w.weight"] == torch.bfloat16 == raw.tensors["w.weight"].dtype
            assert torch.equal(raw.tensors["w.weight"].float(), eight.float()) and raw.place("w.weight") is None
            assert "bfloat16" in raw.notes[0] and not raw.examine(["w.weight"]).problems
            for scale in ("w.weight_scale", "w.scale", "w.weight_scale_inv"):
                assert scale in refusal(tmp_path, {"w.weight": eight, scale: torch.ones(1)}, form=form)
            saved(tmp_path, {"lora.B": eight, "lora.scale.weight": torch.ones(1)}, form=form)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation")
def test_tensors_of_other_kinds_are_named(tmp_path: Path) -> None:
    kinds = {
        "meta": torch.ones(2, device="meta"),
        "sparse": torch.eye(3).to_sparse(),
        "nested": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        "a conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    }
    for word, tensor in kinds.items():
        assert f"odd.weight {'is on the ' if word == 'meta' else 'is '}" in refusal(
            tmp_path, STATE | {"odd.weight": tensor}
        )
    said = refusal(tmp_path, {"a.weight": torch.ones(1).expand(10**12)})
    assert "repeat" in said


def test_numbers_that_are_none(tmp_path: Path) -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn):
        large = torch.full((70, 70), torch.finfo(dtype).max, dtype=torch.float64).to(dtype)
        broken = large.clone()
        broken[69, 69] = float("nan")
        state = {
            "good.weight": large,
            "bad.weight": broken,
            "unasked.weight": broken.clone(),
            "n.n": torch.ones(1).long(),
        }
        for form in ("pt", "safetensors"):
            raw = saved(tmp_path, state, form=form)
            problems = raw.examine(["good.weight", "bad.weight", "absent"]).problems
            assert problems == ("1 with NaN or infinite values: bad.weight",)
            assert raw.examine(["n.n"]).problems == ("1 not floating-point tensors: n.n",)
    part = torch.full((4, 4), float("inf"))
    part[1] = 1.0
    assert not saved(tmp_path, {"a.b": part[1]}).examine(["a.b"]).problems  # the rest of its storage is nobody's


def test_a_flipped_bit_is_found_by_the_archives_checksum(tmp_path: Path) -> None:
    raw = saved(tmp_path, {"model": STATE})
    place = raw.place("a.3.weight")
    assert place is not None
    content = bytearray(place[0].read_bytes())
    content[place[1] + 7] ^= 4
    place[0].write_bytes(content)
    for look in (lambda r: r.examine(list(STATE)), lambda r: r.tensors["a.3.weight"]):
        with pytest.raises(ModelError, match=r"data/3 .*checksum"):
            look(read_checkpoint(place[0]))
    assert torch.equal(read_checkpoint(place[0]).tensors["a.1.weight"], STATE["a.1.weight"])
    torch.serialization.set_crc32_options(False)
    try:
        assert same(saved(tmp_path, STATE), STATE)
    finally:
        torch.serialization.set_crc32_options(True)


def test_archives_that_hide_something(tmp_path: Path) -> None:
    saved(tmp_path, STATE)
    content = (tmp_path / "model.pt").read_bytes()

    def archive(change: Any) -> str:
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(tmp_path / "z.pt", "w") as new:
            for entry in old.infolist():
                change(new, entry.filename, old.read(entry))
        with pytest.raises(ModelError) as caught:
            read_checkpoint(tmp_path / "z.pt")
        return str(caught.value)

    def twice(new: zipfile.ZipFile, name: str, data: bytes) -> None:
        for _ in range(2 if name.endswith("data/1") else 1):
            new.writestr(name, data)

    with pytest.warns(UserWarning, match="Duplicate"):
        assert "twice" in archive(twice)
    assert "compressed" in archive(lambda new, name, data: new.writestr(name, data, zipfile.ZIP_DEFLATED))
    assert "size" in archive(lambda new, name, data: new.writestr(name, data + b"x" * name.endswith("data/1")))
    assert "no values" in archive(lambda new, name, data: None if name.endswith("data/1") else new.writestr(name, data))
    assert "big-endian" in archive(
        lambda n, name, data: n.writestr(name, b"big" if name.endswith("byteorder") else data)
    )
    for cut in (10, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "z.pt").write_bytes(content[:cut])
        with pytest.raises(ModelError):
            read_checkpoint(tmp_path / "z.pt").examine(list(STATE))


def test_safetensors_headers_that_lie(tmp_path: Path) -> None:
    def header(**entries: Any) -> bytes:
        text = json.dumps(
            {name: dict(zip(("dtype", "shape", "data_offsets"), e, strict=True)) for name, e in entries.items()}
        )
        return struct.pack("<Q", len(text)) + text.encode()

    f32 = "F32"
    cases = {
        header(a=(f32, [2], [0, 4])) + bytes(4): "does not fill",
        header(a=(f32, [10**12], [0, 4 * 10**12])) + bytes(8): "truncated",
        header(a=(f32, [-1], [0, 4])) + bytes(4): "does not fill",
        header(a=(f32, [1e0], [0, 4])) + bytes(4): "does not fill",
        header(a=(f32, [2**40] * 70, [0, 4])) + bytes(4): "does not fill",
        header(a=(f32, [1], [0, 4]), b=(f32, [1], [0, 4])) + bytes(4): "over another",
        header(a=(f32, [1], [4, 8])) + bytes(8): "belong to none",
        header(a=(f32, [1], [0, 4])) + bytes(8): "damaged",
        header(a=("F4", [1], [0, 4])) + bytes(4): "stored as F4",
        header(a=(["x"], [1], [0, 4])) + bytes(4): "stored as list",
        struct.pack("<Q", 4) + b'{"a"': "no JSON",
        struct.pack("<Q", 200_000) + b'{"a":' * 40_000: "no JSON",
        struct.pack("<Q", 28) + b'{"a":{"b":1},"a":{"b":1}}   ': "twice",
    }
    for content, said in cases.items():
        (tmp_path / "m.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=said):
            read_checkpoint(tmp_path / "m.safetensors")


class Calls:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def test_pickles_that_want_to_run_code_are_refused(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for function, arguments in (
        (os.system, (f"touch {touched}",)),
        (Path.touch, (touched,)),
        (eval, ("1",)),
        (exec, ("",)),
    ):
        hostile = Calls(function, *arguments)
        for value in ({"model": STATE, "cfg": hostile}, {"model": {**STATE, "x": hostile}}):
            for protocol in (2, 4):
                torch.save(value, tmp_path / "c.pt", pickle_protocol=protocol)
                with pytest.raises(ModelError, match="wants to run code"):
                    read_checkpoint(tmp_path / "c.pt")
        (tmp_path / "bare.pt").write_bytes(pickle.dumps(hostile))
        with pytest.raises(ModelError, match="wants to run code"):
            read_checkpoint(tmp_path / "bare.pt")
    assert not touched.exists()


def test_pickles_that_would_fill_the_memory_or_never_end(tmp_path: Path) -> None:
    shared: Any = [0]
    for _ in range(40):
        shared = [shared] * 10  # 10**40 zeros to whoever walks through
    assert same(saved(tmp_path, {"model": STATE, "x": shared}), STATE)
    assert "nested too deeply" in refusal(tmp_path, {"model": STATE, "cfg": {"x": shared}})
    assert "bits" in refusal(tmp_path, {"model": STATE, "cfg": {"dim": 10**400}})
    circle: dict[str, Any] = {}
    circle["x"] = circle
    assert "nested too deeply" in refusal(tmp_path, {"model": STATE, "cfg": circle})
    saved(tmp_path, {"model": {**STATE, 7: 8, (1,): [2]}, "circle": circle})
    colliding = {i * (2**61 - 1): 0 for i in range(1000)}
    assert same(saved(tmp_path, {"model": STATE, "x": colliding}), STATE)
    for program in (
        b"\x80\x02" + b"(" * 100_000,
        b"\x80\x02}" + b"\x94" * 1000 + b"0.",
        b"\x80\x02\x8e" + struct.pack("<Q", 1 << 50) + b".",
        b"\x80\x02r" + struct.pack("<I", 2**32 - 1) + b".",
        b"\x80\x02}r\xff\xff\xff\xff.",
        b"\x80\x02c\n\n)R.",
        b"\x80\x02Va\nb.",
        b"\x80\x02" + b"]" + b"a" * 5 + b".",
    ):
        (tmp_path / "p.pt").write_bytes(program)
        with pytest.raises(ModelError):
            read_checkpoint(tmp_path / "p.pt")
