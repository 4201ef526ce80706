"""A bundle opened to be served."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mythos_runtime.engine import AnyEngine, EngineOptions, open_engine
from mythos_runtime.engine.bundled import runs_on_cuda
from mythos_runtime.knobs import halt_threshold
from mythos_runtime.manifest import NOT_EXECUTED, Manifest
from mythos_runtime.server.asking import Asker
from mythos_runtime.server.schemas import ModelCard
from mythos_runtime.server.settings import Settings
from mythos_runtime.server.words import Words
from mythos_runtime.session import Options
from mythos_runtime.shards.group import Shards
from mythos_runtime.shards.near import Starter
from mythos_runtime.shards.opening import open_shards
from mythos_runtime.spec import LoopSpec


@dataclass(frozen=True)
class Served:
    """What a bundle's engine takes and says, how it is opened anew, what the bundle says of text, how far that was
    verified, and the shards of its experts, where they are in shards."""

    spec: LoopSpec
    reopen: Callable[[], AnyEngine]
    words: Words
    settings: Settings
    state: str
    shards: Shards | None = None
    _opened: list[AnyEngine] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        bundle: Path,
        manifest: Manifest,
        settings: Settings,
        starter: Starter | None = None,
        engine: EngineOptions | None = None,
        **options: Any,
    ) -> Served:
        """A bundle and its manifest, as read before. Options as `open_engine`'s, `engine` the rest of what the settings
        say of it; errors as `open_engine`'s and `Words.of`'s.

        `starter`: who runs the shards of a bundle that has them; None: processes of this machine.
        """
        shards = None
        if manifest.shards is not None:
            shards = open_shards(bundle, manifest, options.get("options") or Options(), starter)
            options = {**options, "shards": shards}
        serves = replace(engine or EngineOptions(), max_loops=settings.most_loops, most_running=settings.most_running)
        reopen = partial(open_engine, bundle, serves, **options)
        on_cuda = runs_on_cuda(manifest, options.get("options") or Options())
        target = manifest.target("cuda" if on_cuda or options.get("backend") == "eager" else "onnx")
        state = target.state if target is not None else NOT_EXECUTED
        return cls(manifest.spec, reopen, Words.of(bundle, manifest), settings, state, shards, [reopen()])

    def take_engine(self) -> AnyEngine:
        """The engine, which is the caller's from now on, so that its memory goes when the caller lets go of it; when
        asked again, another one. Raises as `open_engine`."""
        return self._opened.pop() if self._opened else self.reopen()

    @property
    def asker(self) -> Asker:
        return Asker(self.spec, self.words, self.settings)

    def card(self, created: int) -> ModelCard:
        """What clients are told of the model."""
        spec, settings = self.spec, self.settings
        knob = spec.exit.knob("halt_threshold")
        threshold = settings.halt_threshold
        if threshold is None:
            threshold = None if knob is None else knob.default
        elif math.isinf(threshold):  # JSON would have null, which means that there is none
            threshold = halt_threshold(spec, threshold)
        return ModelCard(
            id=settings.name,
            object="model",
            created=created,
            owned_by="mythos",
            family=spec.family,
            max_model_len=spec.max_seq_len,
            max_output_tokens=min(settings.most_tokens or spec.max_output_tokens, spec.max_output_tokens),
            trained_loops=spec.trained_loops,
            most_loops=settings.most_loops,
            halt_threshold=threshold,
            tokenizer=None if self.words.tokenizer is None else self.words.entry.kind,
            chat=self.words.template is not None,
            state=self.state,
        )
