"""A few hundred mutants of everything that is read; `make fuzz-readers` runs ten thousand."""

from __future__ import annotations

import pytest
from fuzz_readers.__main__ import run
from golden_bundles import Bundles


@pytest.mark.slow
def test_no_mutant_hangs_grows_fails_or_lies(bundles: Bundles) -> None:
    results = list(run(seed=2, first=0, last=300, bundle=bundles["gqa_decode"]))
    assert not [result for result in results if result["finding"]]
    assert len(results) == 300
    assert min(sum(r["outcome"] == outcome for r in results) for outcome in ("read", "refused")) > 30
