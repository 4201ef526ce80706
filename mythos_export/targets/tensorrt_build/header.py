"""The 64 bytes that a TensorRT-RTX engine begins with: all that can be checked of one without a GPU.

The layout is not documented; this is what TensorRT-RTX 1.7.1 was seen to write, little endian:
0 `vtrt`, 8 a constant 2, 16 the file's size (8 bytes), 24 the version (01 07 01 74 for 1.7.1.116), 28 `vtrt` again,
32 the targets, one bit each (SM 75, 80, 86, 89, 120, 121 from the lowest bit on).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mythos_export.errors import ToolFailed

from .limits import RTX_SMS

HEADER_BYTES = 64
_MAGIC = b"vtrt"


@dataclass(frozen=True)
class Header:
    """`size` and `sms` are None where the file has another layout than the one known here."""

    raw: bytes
    size: int | None
    sms: tuple[int, ...] | None


def read_header(path: Path) -> Header:
    """Raises `ToolFailed` for a file that does not begin like an engine."""
    with path.open("rb") as file:
        raw = file.read(HEADER_BYTES)
    if len(raw) < HEADER_BYTES or not raw.startswith(_MAGIC):
        begins = raw[:4].hex(" ") or "nothing"
        raise ToolFailed(
            f"TensorRT-RTX wrote a file of {path.stat().st_size} bytes that begins with {begins}; an engine begins "
            f"with {_MAGIC.hex(' ')} (vtrt). Build again; if it stays, report it with the log"
        )
    if raw[28:32] != _MAGIC:
        return Header(raw, None, None)
    bits = int.from_bytes(raw[32:36], "little")
    sms = tuple(sm for index, sm in enumerate(RTX_SMS) if bits >> index & 1)
    return Header(raw, int.from_bytes(raw[16:24], "little"), sms)


def check_header(path: Path, sms: tuple[int, ...], version: str) -> Header:
    """The header of an engine that was built for `sms` by TensorRT-RTX `version`, if it says so itself.

    Size and targets are compared only where the header carries that version where this layout has it. Raises
    `ToolFailed`.
    """
    header = read_header(path)
    parts = bytes(int(part) & 0xFF for part in version.split(".")[:4] if part.isdecimal())
    if header.size is None or header.raw[24 : 24 + len(parts)] != parts:
        return header
    actual = path.stat().st_size
    if header.size != actual:
        raise ToolFailed(
            f"the engine states {header.size} bytes and has {actual}: was the disk full? Free some space, build again"
        )
    if header.sms != tuple(sorted(sms)):
        raise ToolFailed(
            f"the engine states the targets {header.sms}, but {tuple(sorted(sms))} were asked for; "
            "report it with the log"
        )
    return header
