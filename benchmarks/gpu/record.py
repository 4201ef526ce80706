"""What a part finds, saved after every step."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Record:
    """Findings by name.

    Attributes:
        found: so far. A step that failed is {"error", "where", "seconds"}.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.found: dict[str, Any] = {}

    def say(self, key: str, value: Any) -> None:
        """Note a finding, and save all."""
        self.found[key] = value
        if self._file is not None:
            written = self._file.with_suffix(".new")
            written.write_text(json.dumps(self.found, default=str), encoding="utf-8")
            written.replace(self._file)

    @contextlib.contextmanager
    def step(self, key: str) -> Iterator[None]:
        """A step whose failure is a finding and does not end the part."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:  # whatever it is: minutes of a GPU are not lost to it
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {str(error)[:600]}"
            place = f"{Path(where.filename).name}:{where.lineno} {where.line}"
            self.say(key, {"error": text, "where": place, "seconds": round(time.perf_counter() - begun, 1)})

    @property
    def failed(self) -> list[str]:
        """The steps that failed, or whose result was out of bounds."""
        bad = []
        for key, value in self.found.items():
            if isinstance(value, dict) and ("error" in value or value.get("ok") is False):
                bad.append(key)
        return bad
