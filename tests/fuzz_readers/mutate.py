"""One change to a folder, of the kinds that disks, networks, people and attackers make."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

RAW = "\u0001raw\u0001"  # in a JSON string: what follows is put into the text as it is
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 7, 0.5, -5.0, 1e300, 32.0, 10**12, 2**31, 2**63, 2**64),
    *("", "x", "../x", "/etc/passwd", "\ud800", "a\u0000b", "x" * 3000, [], {}, [[]], ["x"] * 50, {"": None}),
    *(RAW + "9" * 400, RAW + "1e999", RAW + "NaN", RAW + "-Infinity", RAW + "[" * 20000, RAW + "\\"),
    *(RAW + '{"a":' * 2000 + "1" + "}" * 2000, RAW + '{"a": 1, "a": 2}'),
]
NUMBERS = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
OPCODES = (
    b"(.0012FGIJKLMNPQRSTUVXabcdeghijloprstuqu}]\x80\x81\x82\x85\x88\x8a\x8b\x8c\x8d\x8e\x8f\x90\x92\x93\x94\x95\x96"
)


def mutate(folder: Path, rng: random.Random) -> str:
    """Change one thing in a folder; what, in words."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    own = [f for f in files if f.stat().st_nlink == 1] or files
    file = rng.choice(own)
    kinds: list[Callable[[Path, random.Random], str]] = [_bytes, _bytes, _special]
    if file.suffix == ".json":
        kinds += [_json] * 9
    elif file.suffix in (".pt", ".bin"):
        kinds += [_zip] * 6
    elif file.read_bytes()[8:9] == b"{":
        kinds += [_header] * 6
    return f"{file.name}: {rng.choice(kinds)(file, rng)}"


def _write(file: Path, content: bytes) -> None:
    target = file.resolve()
    target.unlink()  # never through a hard link
    target.write_bytes(content)


def scramble(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Bytes with one change."""
    size = len(data)
    at, length = rng.randrange(size + 1), min(size, rng.choice((1, 2, 4, 8, 16, 100, 1000)))
    if rng.random() < 0.5:
        at = min(at, rng.randrange(min(size, 600) + 1))  # headers are short, and what matters
    end = min(size, at + length)
    kind = rng.choice(("bit", "byte", "number", "cut", "remove", "repeat", "insert", "zero", "swap", "ones"))
    middle = data[at:end]
    if kind == "bit" and middle:
        middle = bytes([middle[0] ^ (1 << rng.randrange(8))]) + middle[1:]
    elif kind == "byte" and middle:
        middle = bytes([rng.randrange(256)]) + middle[1:]
    elif kind == "number":
        form = rng.choice(("<I", "<Q", "<H", ">I"))
        number = struct.pack(form, rng.choice(NUMBERS) & (256 ** struct.calcsize(form) - 1))
        middle, end = number, min(size, at + len(number))
    elif kind == "cut":
        return data[:at], f"cut at {at} of {size}"
    elif kind == "remove":
        middle = b""
    elif kind == "repeat":
        middle = middle * 3
    elif kind == "insert":
        middle = rng.randbytes(length) + middle
    elif kind in ("zero", "ones"):
        middle = (b"\0" if kind == "zero" else b"\xff") * len(middle)
    elif kind == "swap":
        middle = middle[::-1]
    return data[:at] + middle + data[end:], f"{kind} at {at} of {size}"


def _bytes(file: Path, rng: random.Random) -> str:
    content, what = scramble(file.read_bytes(), rng)
    _write(file, content)
    return what


def _special(file: Path, rng: random.Random) -> str:
    """What is no file of its own, or the wrong one."""
    kind = rng.choice(
        ("pipe", "zero device", "loop", "outside", "gone", "empty", "folder", "broken link", "page", "other")
    )
    others = sorted(f for f in file.parent.iterdir() if f.is_file() and f != file)
    content = rng.choice(others).read_bytes() if others else b"[]"
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind in ("zero device", "loop", "outside", "broken link"):
        outside = file.parents[len(file.parents) - 2] / "etc" / "hostname"
        file.symlink_to({"zero device": "/dev/zero", "loop": file.name, "outside": outside, "broken link": "no"}[kind])
    elif kind == "folder":
        file.mkdir()
    elif kind != "gone":
        file.write_bytes({"empty": b"", "page": b"<!doctype html><html>", "other": content}[kind])
    return kind


def change_json(value: Any, rng: random.Random) -> str:
    """The text of a JSON value with one thing changed."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        places += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    if not places:
        return json.dumps(rng.choice(VALUES))
    node, key = rng.choice(places[:40] if rng.random() < 0.6 else places)
    kind = rng.choice(("value", "value", "value", "number", "delete", "twice", "rename", "add"))
    if kind == "number" and isinstance(node[key], (int, float)):
        node[key] = rng.choice((node[key] + 1, node[key] - 1, -node[key], node[key] * 2, node[key] / 2, str(node[key])))
    elif kind == "delete":
        del node[key]
    elif kind in ("twice", "rename", "add") and isinstance(node, dict):
        name = {
            "twice": f"\u0002{key}",
            "rename": rng.choice(("x", "\ud800", "", "module." + str(key))),
            "add": "other",
        }[kind]
        node[name] = node.pop(key) if kind == "rename" else rng.choice((node[key], rng.choice(VALUES)))
    else:
        node[key] = rng.choice(VALUES)
    text = json.dumps(value).replace('"\\u0002', '"')
    while (begin := text.find('"\\u0001raw\\u0001')) >= 0:
        end = begin + 1
        while text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        text = text[:begin] + json.loads(text[begin : end + 1]).removeprefix(RAW) + text[end + 1 :]
    return text


def _json(file: Path, rng: random.Random) -> str:
    text = change_json(json.loads(file.read_text()), rng)
    coding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))
    _write(file, text.encode(coding, "surrogatepass"))
    return f"JSON changed ({coding})"


def _header(file: Path, rng: random.Random) -> str:
    """A safetensors file whose header says something else, with its length right."""
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = change_json(json.loads(data[8 : 8 + length]), rng).encode("utf-8", "surrogatepass")
    _write(file, struct.pack("<Q", len(header)) + header + data[8 + length :])
    return "header changed"


def _zip(file: Path, rng: random.Random) -> str:
    """An archive whose parts were changed by somebody who also made the checksums right; or a changed pickle."""
    data = file.read_bytes()
    if not zipfile.is_zipfile(io.BytesIO(data)):
        _write(file, _pickle(data[:6000], rng) + data[6000:])
        return "pickle changed"
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(changed, "w") as new:
        parts = [(entry.filename, old.read(entry)) for entry in old.infolist()]
        at = (
            rng.randrange(len(parts))
            if rng.random() < 0.3
            else next(i for i, p in enumerate(parts) if "data.pkl" in p[0])
        )
        name, content = parts[at]
        what = rng.choice(("pickle", "pickle", "pickle", "bytes", "rename", "drop", "swap", "deflate"))
        if what == "pickle":
            parts[at] = (name, _pickle(content, rng))
        elif what == "bytes":
            parts[at] = (name, scramble(content, rng)[0])
        elif what == "rename":
            parts[at] = (rng.choice((name + "x", "../x", parts[0][0], "data.pkl", name.upper())), content)
        elif what == "drop":
            del parts[at]
        elif what == "swap":
            other = rng.randrange(len(parts))
            parts[at], parts[other] = (name, parts[other][1]), (parts[other][0], content)
        for name, content in parts:
            new.writestr(name, content, zipfile.ZIP_DEFLATED if what == "deflate" else zipfile.ZIP_STORED)
    _write(file, changed.getvalue())
    return f"archive made anew ({what})"


def _pickle(data: bytes, rng: random.Random) -> bytes:
    """A pickle with some of its program changed."""
    at = rng.randrange(2, max(3, len(data)))
    kind = rng.choice(("opcode", "insert", "number", "splice", "names"))
    if kind == "opcode":
        return data[:at] + bytes([rng.choice(OPCODES)]) + data[at + 1 :]
    if kind == "insert":
        return data[:at] + bytes(rng.choice(OPCODES) for _ in range(rng.randrange(1, 40))) + data[at:]
    if kind == "number":
        return data[:at] + struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF) + data[at + 4 :]
    if kind == "splice":
        start = rng.randrange(len(data))
        return data[:at] + data[start : start + rng.randrange(200)] + data[at:]
    words = (
        (b"FloatStorage", b"LongStorage"),
        (b"FloatStorage", b"HalfStorage"),
        (b"OrderedDict", b"Counter"),
        (b"_rebuild_tensor_v2", b"_rebuild_qtensor"),
        (b"Namespace", b"system"),
        (b"model", b"optim"),
        (b"norm", b"form"),
    )
    old, new = rng.choice(words)
    return data.replace(old, new, rng.randrange(1, 3))
