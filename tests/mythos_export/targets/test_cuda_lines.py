"""The graphs that move lines of states: what they refuse to be made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from golden_bundles import Bundles

from mythos_export.errors import TargetError
from mythos_export.targets.cuda_lines import write_lines
from mythos_runtime.manifest import read_manifest


@pytest.mark.parametrize("name", ["lines", "at", "axis", "early", "encoded", "token", "h_pool"])
def test_a_state_that_is_called_as_a_tensor_of_theirs_is_refused(name: str, bundles: Bundles, tmp_path: Path) -> None:
    spec = read_manifest(bundles["gqa_prefill"]).spec
    assert spec.state[0].name == "h"
    last = replace(spec.state[-1], name=name)
    with pytest.raises(TargetError, match=f"a state of the model is called {name}, as another tensor"):
        write_lines(replace(spec, state=(*spec.state, last)), tmp_path)
    write_lines(spec, tmp_path)
