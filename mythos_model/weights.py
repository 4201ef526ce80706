"""The weights of a model before it holds any: each is made when it is asked for, and forgotten when its reader does.

    sources = checkpoint.sources                    # under the model's own names
    sources["norm.weight"]                          # a tensor
    for expert in sources.pieces("...routed_down"): # one after the other, never all at once

So a model larger than the memory can be rounded and written: what is held is one tensor, of stacked experts one expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

Maker = Callable[[], Tensor]


class Sources(Mapping[str, Tensor]):
    """Tensors by name, made anew by every look at them.

    A name has one maker, or a sequence of makers, whose tensors are on a new first axis.
    """

    def __init__(self, makers: Mapping[str, Maker | Sequence[Maker]]) -> None:
        self._makers = makers

    @classmethod
    def plain(cls, state: Mapping[str, Tensor]) -> Sources:
        """The tensors of a state dict as they are."""
        return cls({name: partial(state.__getitem__, name) for name in state})

    def pieces(self, name: str) -> Iterator[Tensor]:
        """What is stacked on the first axis, one after the other; of everything else, the tensor."""
        made = self._makers[name]
        for maker in [made] if callable(made) else made:
            yield maker()

    def stacked(self, name: str) -> bool:
        """Whether `pieces` are slices of the first axis."""
        return not callable(self._makers[name])

    def __getitem__(self, name: str) -> Tensor:
        made = self._makers[name]
        return made() if callable(made) else torch.stack([maker() for maker in made])

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)
