"""A GGUF file of random weights, matrix by matrix, for llama.cpp: what it says means nothing, and takes as long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = {"Q4_0": 18, "Q8_0": 34}  # bytes of 32 weights, the first two their scale
_TILE = 64  # rows that are drawn; all others repeat them


class RandomFile:
    """A file of the format `form`, Q4_0 or Q8_0; `fields` are the architecture's own, by the writer's methods."""

    def __init__(self, path: Path, form: str, architecture: str, fields: dict[str, Any]) -> None:
        import gguf

        self._path, self._form, self._kind = path, form, gguf.GGMLQuantizationType[form]
        self._generator = np.random.default_rng(0)
        self._writer = gguf.GGUFWriter(path, architecture)
        for name, value in fields.items():
            getattr(self._writer, f"add_{name}")(value)
        self._words(fields["vocab_size"])

    def _words(self, size: int) -> None:
        """A tokenizer that llama.cpp takes: it is asked with ids."""
        words = [b"<unk>", b"<s>", b"</s>", *(f"<0x{i:02X}>".encode() for i in range(256))]
        words += [f"w{i}".encode() for i in range(size - len(words))]
        self._writer.add_tokenizer_model("llama")
        self._writer.add_token_list(words)
        self._writer.add_token_scores([0.0] * size)
        self._writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (size - 259)])

    def matrix(self, name: str, inputs: int, *rows: int) -> None:
        """[*rows, inputs] in the file's format; `inputs` a multiple of 32, as the format wants it."""
        count, blocks = int(np.prod(rows)), inputs // 32
        drawn = min(_TILE, count)
        few = self._generator.integers(0, 256, (drawn, blocks, _BLOCK[self._form]), np.uint8)
        few[..., :2] = np.full((drawn, blocks), 0.01 * inputs**-0.5, np.float16)[..., None].view(np.uint8)
        data = np.tile(few.reshape(drawn, -1), (-(-count // drawn), 1))[:count].reshape(*rows, -1)
        self._writer.add_tensor(name, data, raw_dtype=self._kind)

    def values(self, name: str, values: np.ndarray) -> None:
        """A tensor in float32."""
        self._writer.add_tensor(name, values.astype(np.float32))

    def close(self) -> None:
        """Write everything."""
        self._writer.write_header_to_file()
        self._writer.write_kv_data_to_file()
        self._writer.write_tensors_to_file()
        self._writer.close()
