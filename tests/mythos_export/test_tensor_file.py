"""Safetensors files as the library reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from mythos_export.tensor_file import write_tensors


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tensors = {
        "b": torch.arange(3, dtype=torch.int8),
        "bits": torch.tensor([True, False]),
        "half": torch.randn(3).half(),
        "brain": torch.randn(5).bfloat16(),
        "transposed": torch.randn(2, 3).T,
        "part": torch.randn(4, 4)[1:3, ::2],
        "number": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "long": torch.arange(2),
        'a "name" of Zürich': torch.zeros(1),
    }
    offsets = write_tensors(tmp_path / "x", tensors, {"who": 'we, "ours"'})
    read = load_file(tmp_path / "x")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    with safetensors.safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"who": 'we, "ours"'}
    text = (tmp_path / "x").read_bytes()
    for name, (start, end) in offsets.items():
        if tensors[name].dtype == torch.float32:
            assert start % 4 == 0
            found = torch.frombuffer(bytearray(text[start:end]), dtype=torch.float32) if end > start else torch.empty(0)
            assert torch.equal(found, tensors[name].contiguous().flatten())


def test_a_full_disk_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_tensors(Path("/dev/full"), {"x": torch.zeros(1 << 20)})
