"""Where `test_planted_cpp` and `test_planted_cpp_engine` plant, which take minutes, the sources still have what they
replace."""

from __future__ import annotations

import pytest
from planted_source import Plant
from test_planted_cpp import DENSE_PLANTS, LIBRARY_PLANTS
from test_planted_cpp_engine import ENGINE_PLANTS

PLANTS = {**DENSE_PLANTS, **LIBRARY_PLANTS, **ENGINE_PLANTS}


@pytest.mark.parametrize("plant", [plant for plant, _ in PLANTS.values()], ids=list(PLANTS))
def test_a_plant_has_a_spot(plant: Plant) -> None:
    assert plant.source()
