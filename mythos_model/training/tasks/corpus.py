"""The text that `text` learns: the Jargon File 4.4.7, in the public domain, from the Debian package `jargon-text`.

The package's copyright file says: "This document (the Jargon File) is in the public domain, to be freely used,
shared, and modified." The text is not in this repository; `fetch` gets the package from the machine's own Debian
mirror with `apt-get download`, which needs no root and installs nothing.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

from mythos_model.errors import ModelError

PACKAGE = "jargon-text"
MEMBER = Path("usr/share/doc/jargon-text/jargon.txt.gz")
SHORTEST = 60  # characters; shorter paragraphs are headings and tables of contents
HELD_OUT = 20  # one paragraph in so many is not trained on
_ASCII = {"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "...", "\u00a0": " "}


class CorpusMissing(ModelError):
    """The text cannot be fetched on this machine; the message says what is missing."""

    exit_code = 3


def fetch(folder: Path) -> Path:
    """The package's text file in `folder`, downloaded where it is not there yet.

    Raises:
        CorpusMissing: no apt, no such package, or no connection.
    """
    file = folder / MEMBER.name
    if file.is_file():
        return file
    lacking = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if lacking:
        raise CorpusMissing(f"{', '.join(lacking)} is missing, so that {PACKAGE} cannot be fetched; {_by_hand(file)}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        _run(["apt-get", "download", PACKAGE], Path(work), file)
        package = next(Path(work).glob(f"{PACKAGE}_*.deb"))
        _run(["dpkg-deb", "-x", package.name, "."], Path(work), file)
        (Path(work) / MEMBER).replace(file)
    return file


def _run(command: list[str], folder: Path, wanted: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise CorpusMissing(f"`{' '.join(command)}` failed: {reason}; try `apt-get update`, or {_by_hand(wanted)}")


def _by_hand(wanted: Path) -> str:
    return f"put {MEMBER.name} of the Debian package {PACKAGE} at {wanted}"


def read(file: Path) -> tuple[bytes, bytes]:
    """Text to train on, and text held out: paragraphs of one line each, ASCII but for what has no ASCII form.

    Raises CorpusMissing where the file is damaged.
    """
    try:
        wrapped = gzip.decompress(file.read_bytes()).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CorpusMissing(f"{file} is damaged ({error}); remove it, and it is fetched again") from error
    wrapped = wrapped.translate({ord(fancy): plain for fancy, plain in _ASCII.items()})
    joined = (" ".join(block.split()) for block in re.split(r"\n\s*\n", wrapped))
    paragraphs = [paragraph for paragraph in joined if len(paragraph) >= SHORTEST or paragraph.startswith(":")]

    def text(held_out: bool) -> bytes:
        chosen = (p for index, p in enumerate(paragraphs) if (index % HELD_OUT == HELD_OUT - 1) == held_out)
        return "\n".join(chosen).encode("utf-8")

    return text(False), text(True)
