"""What several packages' tests share: the golden data, and bundles exported from it once per session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mythos_export import export

GOLDEN = Path(__file__).parent / "golden"


class Bundles(dict[str, Path]):
    """Bundles for ONNX by the name of their golden case, exported when first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, case: str) -> Path:
        source = next((GOLDEN / case).glob("*.pt"), GOLDEN / case / "model.safetensors")
        self[case] = export(source, self.folder / case, target="onnx", **config_of(case)).path
        return self[case]


def config_of(case: str) -> dict[str, dict[str, object]]:
    """The keyword argument `config` for a golden case; none where the checkpoint brings its own."""
    description = GOLDEN / case / "case.json"
    return {"config": json.loads(description.read_text())["config"]} if description.exists() else {}


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"))
