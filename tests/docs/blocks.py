"""The commands and programs that a Markdown page shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page that name a language, in order."""
    return [Block(found[1], found[2]) for found in _FENCE.finditer(page.read_text(encoding="utf-8"))]


def script(found: list[Block]) -> str:
    """All of them as one bash script that ends at the first command that fails."""
    parts = ["set -exo pipefail"]
    for block in found:
        if block.language == "bash":
            parts.append(block.text)
        elif block.language == "python":
            parts.append(f"python - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
    return "\n".join(parts) + "\n"
