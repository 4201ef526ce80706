"""Pages of int8 lines: what they hold, what they take, and that the engine over them computes the rounding model."""

from __future__ import annotations

import numpy as np
import torch
from row_models import POSITIONS, RowModel, config
from test_core import LIMIT, THRESHOLD, feed, ids_of
from test_exact import hold_to_alone

from mythos_model import MythosModel
from mythos_model.cache_lines import unpack
from mythos_runtime.batch import Chunk
from mythos_runtime.engine.memory import Memory, position_bytes, state_bytes
from mythos_runtime.engine.row_cache import Pool, RowCache


def test_computes_what_the_rounding_model_computes(int8_row_model: RowModel) -> None:
    """Token by token. A value that is near the middle of two integers may go either way, which is why what the cache
    holds may differ by a step here and there, and logits by what that makes of them."""
    core, ids = int8_row_model.core(), ids_of(1, POSITIONS)
    with torch.no_grad():
        model, given = int8_row_model.model, torch.tensor(ids)[None]
        asked = dict(max_loops=LIMIT, halt_threshold=THRESHOLD, early_exit=False)
        rounded = model(given, **asked)
        plain = MythosModel(config("mla")).eval()
        plain.load_state_dict(model.state_dict())
        whole = plain(given, **asked)
    sequence = core.open(LIMIT, THRESHOLD)
    answers = [feed(core, [(sequence, ids[at : at + 1])])[0] for at in range(POSITIONS)]
    logits = np.stack([answer.logits[0] for answer in answers])
    expected, other = rounded.logits[0].numpy(), whole.logits[0].numpy()
    off = np.linalg.norm(logits - expected)
    assert off < 0.2 * np.linalg.norm(expected - other)  # which is what rounding moves
    depth = np.array([answer.depth[0] for answer in answers])
    assert (depth == rounded.depth[0].numpy()).mean() > 0.97

    assert core.around is not None
    group = model.spec.cache("layers")
    assert group is not None
    held = unpack(torch.from_numpy(core.around.read(sequence.around, POSITIONS)), group.rounded, torch.float32)
    made = rounded.new["layers"][:, 0]  # [layers, positions, width]
    assert (held - made).abs().max() < 0.02 * made.abs().max()
    core.close(sequence)


def test_any_schedule_gives_what_each_request_gets_alone(int8_row_model: RowModel) -> None:
    hold_to_alone(int8_row_model, 2)


def test_a_position_takes_a_byte_for_a_value_and_two_for_a_scale(int8_row_model: RowModel) -> None:
    spec = int8_row_model.model.spec
    plain = MythosModel(config("mla")).spec
    width, lines = 16 + 8, 2 + 5  # latent and rotary key; layers around the loop, and loops
    assert position_bytes(plain, 5) == 4 * width * lines and position_bytes(spec, 5) == (width + 2 * 2) * lines
    memory, other = (Memory.of(each, 1 << 20, 5, lagging=64) for each in (spec, plain))
    assert memory.longest > 3 * other.longest
    assert memory.around is not None and memory.around.memory.dtype == np.int8
    assert memory.bytes == memory.longest * position_bytes(spec, 5) + 64 * state_bytes(spec) <= 1 << 20


def test_a_cache_is_written_as_it_was_read(int8_row_model: RowModel) -> None:
    """Floats outside, bytes in the pages: what follows is the same to the bit."""
    spec, pool = int8_row_model.model.spec, Pool(int8_row_model.core())
    ids, lengths = np.stack([ids_of(seed, 9) for seed in (1, 2)]), np.array([9, 4])
    given = Chunk(ids, np.arange(9) < lengths[:, None])
    first, again = (RowCache(pool, 2, 40, spec, LIMIT) for _ in range(2))
    first.forward(given, THRESHOLD, 0, None)
    entries = first.read()
    groups = {group.name: group for group in spec.caches}
    assert entries.keys() == groups.keys()
    for name, held in entries.items():
        assert held.dtype == np.float32 and held.shape[-1] == groups[name].width and held.any()
    again.write(entries, lengths)
    for name, held in again.read().items():
        assert np.array_equal(held, entries[name])
    following = Chunk(ids[:, :3], np.ones((2, 3), bool))
    expected = first.forward(following, THRESHOLD, 0, None)
    assert all(map(np.array_equal, again.forward(following, THRESHOLD, 0, None), expected))
