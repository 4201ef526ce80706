"""What a file is that is no checkpoint, told by how it begins, so that an error can name it."""

from __future__ import annotations

_STARTS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself: run `git lfs pull` there"),
    (b"GGUF", "a GGUF file (llama.cpp's weights); give the checkpoint that it was made from"),
    (b"lmgg", "a GGML file (llama.cpp's old weights); give the checkpoint that it was made from"),
    (b"tjgg", "a GGML file (llama.cpp's old weights); give the checkpoint that it was made from"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights)"),
    (b"\x93NUMPY", "a numpy array (.npy)"),
    (b"\x1f\x8b", "compressed with gzip: unpack it first"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it first"),
    (b"BZh", "compressed with bzip2: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)


def kind_of(start: bytes) -> str | None:
    """A phrase for what begins like that (512 bytes are enough); None where it is nothing known."""
    for magic, kind in _STARTS:
        if start.startswith(magic):
            return kind
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if not any(start):
        return "zeros only: its download or its copy was not finished"
    try:
        text = start.decode("utf-8-sig", "strict" if len(start) < 512 else "ignore").lstrip()
    except UnicodeDecodeError:
        return None
    if any(not (c.isprintable() or c.isspace()) for c in text):
        return None
    lower = text.lower()
    if lower.startswith(("<!doctype html", "<html")):
        return "a web page, probably an error or login page that was saved in place of the file: download it again"
    if lower.startswith("<"):
        return "an XML text, probably a server's error that was saved in place of the file: download it again"
    if text.startswith(("{", "[")):
        return "a JSON text"
    return "a text file"
