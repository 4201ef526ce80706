"""AOTInductor: the model as a shared library, its loop kept as `while_loop`.

Exported for the workload's very shapes, weights frozen, everything built with inductor's own flags.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch

from benchmarks.peers.plain import CompiledPeer, exported, first_that_builds, plain_model, tensors
from benchmarks.peers.torch_compile import cpp_compiler_missing
from mythos_export.bench.backends.backend import Call, Outcome, Setting
from mythos_export.bench.workloads import Case


class AotInductor(CompiledPeer):
    name = "AOTInductor"

    def lacks(self) -> str | None:
        return cpp_compiler_missing()

    def load(self, setting: Setting) -> str:
        warnings.simplefilter("ignore")
        torch.set_num_threads(setting.threads)
        self.setting = setting
        self.built: dict[str, Any] = {}
        return f"torch {torch.__version__}, while_loop kept, static shapes, frozen weights"

    def compile(self, case: Case) -> str:
        checkpoint = self.setting.checkpoint
        assert checkpoint is not None

        def build(form: Any) -> Any:
            model = plain_model(checkpoint, form)
            self.spec = model.spec
            program = exported(model, tensors(case, self.spec))
            path = self.setting.scratch / f"aot {case.workload.name} {form.__name__}.pt2"
            package = torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
            run = torch._inductor.aoti_load_package(package)
            run(*tensors(case, self.spec))
            return run

        self.built[case.workload.name], note = first_that_builds(case, build)
        return note

    def prepare(self, case: Case) -> Call:
        run, names = self.built[case.workload.name], [port.name for port in self.spec.ports.outputs]
        ports = tensors(case, self.spec)

        def call() -> Outcome:
            named = dict(zip(names, run(*ports), strict=True))
            return Outcome(named["logits"][:, -1].numpy(), int(named["loops"]))

        return call
