"""Weights in files outside of a bundle: mapped where they are, and never before they were held to the manifest."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mythos_runtime import BundleError, linked
from mythos_runtime.linked import LinkedFile, LinkedTensor, Links, Stretch, open_links

PAGE = mmap.PAGESIZE
CONTENT = np.random.default_rng(0).integers(0, 256, 40 * PAGE, np.uint8).tobytes()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linked, "_checked", set())


def links_to(file: Path, *stretches: Sequence[int]) -> Links:
    """A tensor of these stretches of the file, (start, bytes)."""
    content = file.read_bytes()
    entry = LinkedFile(str(file), hashlib.sha256(content).hexdigest(), len(content))
    count = sum(size for _, size in stretches) // 4
    parts = tuple(Stretch(0, start, size) for start, size in stretches)
    return Links((entry,), {"w": LinkedTensor("float32", (count,), parts)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint" / "model.safetensors"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize(
    ("stretches", "mappable"),
    [
        ([(0, 8 * PAGE)], True),
        ([(104, 100)], True),  # within a page
        ([(PAGE + 104, 3 * PAGE), (20 * PAGE + 104, 2 * PAGE), (10 * PAGE + 104, PAGE)], True),  # seams within pages
        ([(104, 2 * PAGE + 8), (3 * PAGE + 112, 2 * PAGE)], True),
        ([(104, 2 * PAGE), (8 * PAGE, 2 * PAGE)], False),  # the second lies differently in its page
    ],
)
def test_stretches_lie_beside_each_other(file: Path, stretches: list[tuple[int, int]], mappable: bool) -> None:
    links = links_to(file, *stretches)
    assert links.tensors["w"].mappable == mappable
    found = open_links(file.parent, links)["w"]
    assert found.tobytes() == b"".join(CONTENT[start : start + size] for start, size in stretches)
    for name in os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else ():
        assert Path(f"/proc/self/fd/{name}").resolve() != file, "nothing holds the file open"


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="what a process holds is read from /proc")
def test_nothing_but_pages_at_seams_is_copied(file: Path) -> None:
    found = open_links(file.parent, links_to(file, (PAGE + 104, 16 * PAGE), (20 * PAGE + 104, 16 * PAGE)))["w"]
    assert found.tobytes()  # looked at
    mapped = copied = 0
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            inside = line.endswith(str(file))
            start, end = (int(part, 16) for part in name.split("-"))
            mapped += (end - start) * inside
        elif inside and name == "Anonymous:":
            copied += int(rest[0])
    assert (mapped, copied) == (30 * PAGE, 0)  # all but the first page, the last, and the one in which both end


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="what a process holds is read from /proc")
def test_pages_are_forgotten_and_come_back(file: Path) -> None:
    stretches = [(PAGE + 104, 16 * PAGE), (20 * PAGE + 104, 16 * PAGE)]
    found = open_links(file.parent, links_to(file, *stretches))["w"]
    expected = b"".join(CONTENT[start : start + size] for start, size in stretches)
    assert found.tobytes() == expected and resident(file) == 30 * PAGE
    linked.forget(found.ctypes.data)
    assert resident(file) == 0
    assert found.tobytes() == expected, "the pages at seams were copied, and are kept"
    address = found.ctypes.data
    del found
    linked.forget(address)  # of nobody any more


def resident(file: Path) -> int:
    """Bytes of a file that are in this process's memory."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if "-" in name and not name.endswith(":"):
            inside = line.endswith(str(file))
        elif inside and name == "Rss:":
            found += int(rest[0]) * 1024
    return found


def test_what_is_not_the_file_of_the_export_is_refused(file: Path, tmp_path: Path) -> None:
    links = links_to(file, (104, 4 * PAGE))
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not there; put it back, or say where it is now"):
        open_links(tmp_path, links)
    os.mkfifo(file)
    with pytest.raises(BundleError, match="no regular file"):  # and nobody waits for the pipe's other end
        open_links(tmp_path, links)
    file.unlink()
    file.write_bytes(CONTENT[:-1])
    with pytest.raises(BundleError, match="had 163840 bytes|it was changed"):
        open_links(tmp_path, links)
    file.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(BundleError, match="content is not that of the export"):
        open_links(tmp_path, links)
    with pytest.raises(BundleError, match="content is not that of the export"):  # without having been named
        open_links(tmp_path, links, verify_hashes=False)
    assert open_links(tmp_path, links, file, verify_hashes=False)["w"].tobytes() == CONTENT[104 : 104 + 4 * PAGE]
    assert open_links(tmp_path, links, tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(tmp_path / "model.safetensors")
    assert open_links(tmp_path, links, tmp_path)  # the folder with a file of that name


def test_a_file_is_hashed_once_as_long_as_it_stays_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times, digest = [], hashlib.file_digest

    def counted(stream: Any, name: str) -> Any:
        times.append(name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    links = links_to(file, (104, 4 * PAGE))
    for _ in range(3):
        open_links(file.parent, links)
    assert len(times) == 1
    os.utime(file, ns=(1, 1))
    open_links(file.parent, links)
    assert len(times) == 2
