"""Target `tensorrt`: engines from the same ONNX graph, built in a process of its own, also without a GPU."""

from __future__ import annotations

import contextlib
from pathlib import Path

import onnx
import onnx_ir as ir

from mythos_export.errors import TargetError
from mythos_export.kernels.fallback import DECOMPOSED, PLUGIN, TENSORRT, TENSORRT_ROWS
from mythos_export.lower import Lowered, run_passes
from mythos_export.passes.attach_functions import attach_tensorrt_functions, detach_functions
from mythos_export.passes.expand_float_products import expand_float_products
from mythos_export.passes.expand_rotary import expand_rotary
from mythos_export.passes.inline_functions import inline_functions
from mythos_export.progress import Progress
from mythos_export.targets import tensorrt_build as trt
from mythos_export.targets import tensorrt_plugins, tensorrt_rows
from mythos_export.targets.ep_context import write_ep_context
from mythos_export.targets.target import Built, TargetOptions
from mythos_export.verify.stages.engine import Engine
from mythos_runtime.row_ports import GRAPHS
from mythos_runtime.spec import LoopSpec

GRAPH = "model.tensorrt.onnx"
TURING = 75  # takes no float32 matrix product

# In order; what TensorRT's parser needs beyond the portable graph.
PASSES = (
    expand_rotary,  # a layer that TensorRT-RTX has and cannot build
    attach_tensorrt_functions,  # bodies without NonZero and without shapes that depend on data
    inline_functions,  # a node of an unknown domain would be looked up as a plug-in
)
PLUGIN_PASSES = (
    expand_rotary,
    attach_tensorrt_functions,
    detach_functions,  # operators with a plug-in stay nodes
    inline_functions,
    attach_tensorrt_functions,  # for ONNX Runtime, which compares this graph; see `tensorrt_plugins`
)


class TensorRTTarget:
    """Full TensorRT where it and a GPU are there, TensorRT-RTX's build without a GPU otherwise."""

    name = "tensorrt"
    precisions = ("fp16", "fp32")  # it is not given the operators of int8 and int4 weights
    options = frozenset({"sm", "batch", "tokens", "context", "plugins", "rows"})

    def check(self, options: TargetOptions) -> None:
        sms = trt.parse_sms(options.sm) if options.sm else trt.DEFAULT_SMS
        backend = trt.choose_backend()
        if backend.rtx:
            trt.limits.check_targets(sms, options.precision)
        if options.rows and sms is not None and TURING in sms:
            raise TargetError(f"--rows builds no engines for SM {TURING}; leave it out of --sm")
        if options.plugins:
            tensorrt_plugins.check(sms if options.sm or backend.rtx else backend.targets(None, options.precision))
        for name in ("batch", "tokens", "context"):
            value = getattr(options, name)
            if value is not None:
                trt.Range.parse(value, f"--{name}")

    def check_model(self, spec: LoopSpec, options: TargetOptions) -> None:
        trt.check_ranges(**_ranges(spec, options), max_seq_len=spec.max_seq_len)
        if options.rows and not set(GRAPHS) <= set(spec.graphs):
            raise TargetError(
                f"--rows was asked for, but with its exit rule {spec.exit.name} this model has no row graphs; leave "
                "it out, or choose another --exit"
            )

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        spec = lowered.spec
        model = ir.load(lowered.path)
        sms = trt.parse_sms(options.sm) if options.sm else None
        passes = PLUGIN_PASSES if options.plugins else PASSES
        if sms is not None and TURING in sms:
            passes = (*passes, expand_float_products)
        run_passes(model, passes, None if options.dump is None else options.dump / self.name)
        path = folder / GRAPH
        ir.save(model, path)
        profiles = profiles_of(path, spec, options)

        kernels: tuple[str, ...] = ()
        with contextlib.ExitStack() as stack:
            graph = path
            if options.plugins:
                targets = trt.choose_backend().targets(sms, options.precision)
                kernels = tensorrt_plugins.compile_kernels(model, options.precision, folder, targets, progress)
                graph = stack.enter_context(tensorrt_plugins.graph_of_plugins(model, options.precision, folder))
            request = trt.BuildRequest(
                graph, folder / "engines", tuple(profiles), options.precision, sms, plugins=options.plugins
            )
            result = trt.build(request, lambda phase, part=None: progress(f"TensorRT: {phase}", part))
        engines = tuple(f"engines/{engine.path.name}" for engine in result.engines)
        details = tensorrt_rows.described_build(result, "engines", options.plugins)
        wrappers: tuple[str, ...] = ()
        if result.backend == "tensorrt_rtx":
            wrappers = tuple(f"engines/{write_ep_context(engine.path, path).name}" for engine in result.engines)
        files = (*engines, *wrappers, *kernels, GRAPH)
        taken = {TENSORRT: PLUGIN if options.plugins else DECOMPOSED}
        if options.rows:
            taken[TENSORRT_ROWS] = DECOMPOSED
            more, details["row_engines"] = tensorrt_rows.build_rows(lowered, folder, options, sms, progress)
            files = (*files, *more)
        # A GPU runs one engine: where there are others (of the row graphs, too), they were not executed, and nor is the
        # target called verified.
        proof = (Engine.name,) if len(engines) == 1 and not options.rows else ()
        return Built(self.name, files, proof, details, {result.backend: result.version}, taken)


def profiles_of(path: Path, spec: LoopSpec, options: TargetOptions) -> list[trt.Profile]:
    """A prefill and a decode profile from the ranges asked for."""
    inputs = trt.graph_inputs(onnx.load(path, load_external_data=False))
    return list(trt.profiles_for(inputs, **_ranges(spec, options), max_seq_len=spec.max_seq_len))


def _ranges(spec: LoopSpec, options: TargetOptions) -> dict[str, trt.Range]:
    """Those that were asked for; what is open fits the model."""
    tokens, context = min(512, spec.max_seq_len), min(4096, spec.max_seq_len)
    given = {
        "batch": options.batch or "1:1:8",
        "tokens": options.tokens or f"1:{max(1, tokens // 4)}:{tokens}",
        "context": options.context or f"0:{context // 4}:{context}",
    }
    ranges = {name: trt.Range.parse(text, f"--{name}") for name, text in given.items()}
    return ranges | {"loops": trt.Range(1, spec.trained_loops, 2 * spec.trained_loops)}
