"""What the CPU library says that it is cut at: asked from the library itself (`mythos_ops_describe`)."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mythos_runtime.errors import BackendMissing
from mythos_runtime.op_library import find_op_library
from mythos_runtime.row_ports import PAGE


@dataclass(frozen=True)
class Cuts:
    """Sizes at which kernels take another path.

    Attributes:
        keys: of an attention, that one step covers; also a page's.
        heights: rows of activations that one tile of a product takes, of every instruction set of this machine.
        widths: floats of a register.
    """

    keys: int
    heights: tuple[int, ...]
    widths: tuple[int, ...]


# Of the library as it stands here; where there is none, cases are chosen for the one that another machine has.
USUAL = Cuts(PAGE, (2, 4, 6, 12), (4, 8, 16))


def describe(library: Path) -> dict[str, Any]:
    """The library's own words: `formats`, `key_block`, `deep`, and by instruction set its `isas`.

    Raises:
        BackendMissing: it cannot be loaded here, or does not say.
    """
    try:
        loaded = ctypes.CDLL(str(library))
        loaded.mythos_ops_describe.restype = ctypes.c_char_p
        said: dict[str, Any] = json.loads(loaded.mythos_ops_describe())
    except (OSError, AttributeError, ValueError) as error:
        raise BackendMissing(
            f"the operator library {library} does not say what it is made of ({error}); build it again"
        ) from error
    return said


def cuts() -> Cuts:
    """Those of the library that sessions take here, and the usual ones. Raises BackendMissing."""
    library = find_op_library()
    if library is None:
        return USUAL
    said = describe(library)
    isas = said["isas"].values()
    return Cuts(
        said["key_block"],
        tuple(sorted({*USUAL.heights, *(isa[name] for isa in isas for name in ("rows", "panel_rows"))})),
        tuple(sorted({*USUAL.widths, *(isa["width"] for isa in isas)})),
    )
