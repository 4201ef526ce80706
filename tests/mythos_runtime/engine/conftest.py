"""Row graphs, made once a session."""

from __future__ import annotations

import pytest
import torch
from row_models import RowModel

from mythos_runtime.op_library import find_op_library


@pytest.fixture(scope="session", params=["mla", "gqa"])
def row_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.openmythos(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def half_row_model(tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    """Of weights, caches and activations in float16."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.openmythos("gqa", tmp_path_factory.mktemp("half"), dtype=torch.float16)


@pytest.fixture(scope="session")
def int8_row_model(tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    """Whose caches are rounded to int8."""
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.openmythos("mla", tmp_path_factory.mktemp("int8"), int8_cache=True)
