"""Where `test_planted_cpp` plants, which takes minutes, the sources still have what it replaces."""

from __future__ import annotations

import pytest
from planted_source import Plant
from test_planted_cpp import DENSE_PLANTS, ENGINE_PLANTS, LIBRARY_PLANTS

PLANTS = {**DENSE_PLANTS, **LIBRARY_PLANTS, **ENGINE_PLANTS}


@pytest.mark.parametrize("plant", [plant for plant, _ in PLANTS.values()], ids=list(PLANTS))
def test_a_plant_has_a_spot(plant: Plant) -> None:
    assert plant.source()
