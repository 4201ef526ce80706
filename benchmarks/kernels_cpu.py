"""The CPU kernels against ONNX Runtime's own operators and against the machine's limits, as ratios of one run.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/kernels_cpu.py [--threads 1] [--big] [--seconds 1]

Every figure of a row is measured in turns with the others (kernel, stock operators, numpy), and the best of each is
kept. `stock` is the best portable form of the operator: per expert NonZero, Gather, Gemm, ScatterND; absorbed attention
over the masked past and chunk. `of memory` compares the weights and cache that the operator reads with numpy's
matrix-vector product over as many bytes, wherever in the caches those fit; `of GEMM` its multiplications with
numpy's product of two 1024 x 1024 matrices. Run with one thread for numpy, these are limits of one thread. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

Array = NDArray[Any]
LIBRARY = Path(__file__).parents[1] / "build/kernels/libmythos_ops.so"
random = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return random.standard_normal(shape, dtype=np.float32) / np.float32(shape[-1] ** 0.5)


def in_turns(
    calls: Iterable[Callable[[], Any]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """The best time of each call in seconds. They take turns of some calls each, so that each meets its own data in the
    cache, as a loop's iterations do, and all meet the same disturbances."""
    calls = list(calls)
    best = [float("inf")] * len(calls)
    end, rounds = time.perf_counter() + seconds * len(calls), 0
    while rounds < 3 or time.perf_counter() < end:
        for i, call in enumerate(calls):
            turn = clock() + 0.02
            while (start := clock()) < turn:
                call()
                best[i] = min(best[i], clock() - start)
        rounds += 1
    return best


def runner(nodes: str, inputs: dict[str, Array], threads: int) -> tuple[Callable[[], Any], Callable[[], Array]]:
    """(run once, fetch the result) of a graph in ONNX's text form, its inputs bound where they are."""
    types = {"f": "float", "i": "int64"}
    declared = ", ".join(f"{types[v.dtype.kind]}[{','.join(map(str, v.shape))}] {k}" for k, v in inputs.items())
    text = f'<ir_version: 10, opset_import: ["" : 21, "mythos" : 1]> g ({declared}) => (float[N, M] y) {{ {nodes} }}'
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = onnx.parser.parse_model(text).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {k: ort.OrtValue.ortvalue_from_numpy(v) for k, v in inputs.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    binding.bind_output("y")

    def run(_alive: object = values) -> None:
        session.run_with_iobinding(binding)

    return run, lambda: binding.get_outputs()[0].numpy()


def stock_moe(E: int) -> str:
    def ffn(x: str, gate_up: str, down: str, to: str) -> str:
        return f"""{to}_gu = Gemm<transB=1>({x}, {gate_up})
            {to}_g, {to}_u = Split<axis=1, num_outputs=2>({to}_gu)
            {to}_s = Sigmoid({to}_g)
            {to}_gs = Mul({to}_g, {to}_s)
            {to}_h = Mul({to}_gs, {to}_u)
            {to} = Gemm<transB=1>({to}_h, {down})\n"""

    nodes = "minus = Constant<value = int64[1] {-1}>()\n" + ffn("x", "sg", "sd", "y0")
    for e in range(E):
        nodes += f"""c{e} = Constant<value = int64 {{{e}}}>()
            hit{e} = Equal(expert_index, c{e})
            nz{e} = NonZero(hit{e})
            at{e} = Transpose(nz{e})
            token{e}, slot{e} = Split<axis=1, num_outputs=2>(at{e})
            flat{e} = Reshape(token{e}, minus)
            x{e} = Gather(x, flat{e})
            {ffn(f"x{e}", f"g{e}", f"d{e}", f"o{e}")}
            w{e} = GatherND(expert_weight, at{e})
            wu{e} = Unsqueeze(w{e}, minus)
            ow{e} = Mul(o{e}, wu{e})
            y{e + 1} = ScatterND<reduction="add">(y{e}, token{e}, ow{e})\n"""
    return nodes + f"y = Identity(y{E})"


def moe_row(n: int, D: int, F: int, E: int, K: int, Fs: int, arguments: argparse.Namespace) -> dict[str, Any]:
    weights = {"routed_gate_up": normal(E, 2 * F, D), "routed_down": normal(E, D, F)}
    shared = {"shared_gate_up": normal(2 * Fs, D), "shared_down": normal(D, Fs)}
    index = np.argsort(random.random((n, E)), 1)[:, :K]
    routing = {"x": normal(n, D), "expert_index": index, "expert_weight": np.full((n, K), 1 / K, np.float32)}
    names = [*routing, *weights, *shared]
    kernel = runner(f"y = mythos.moe({', '.join(names)})", {**routing, **weights, **shared}, arguments.threads)
    parts = {f"g{e}": v for e, v in enumerate(weights["routed_gate_up"])}
    parts |= {f"d{e}": v for e, v in enumerate(weights["routed_down"])}
    parts |= {"sg": shared["shared_gate_up"], "sd": shared["shared_down"]}
    stock = runner(stock_moe(E), {**routing, **parts}, arguments.threads)
    products = 3 * D * n * (K * F + Fs)
    read = 4 * 3 * D * (len(np.unique(index)) * F + Fs)
    return compare(f"moe n={n} D={D} F={F} E={E} K={K} Fs={Fs}", kernel, stock, products, read, arguments)


STOCK_MLA = """zero = Constant<value = int64[1] {0}>()
    one = Constant<value = int64[1] {1}>()
    axis = Constant<value = int64[1] {3}>()
    last = Constant<value = int64[1] {-1}>()
    w_uk, w_uv = Split<axis=1, num_outputs=2>(w)
    q_heads = Transpose<perm=[0,2,1,3]>(q_nope)
    r_heads = Transpose<perm=[0,2,1,3]>(q_rope)
    q_lat = MatMul(q_heads, w_uk)
    q = Concat<axis=3>(q_lat, r_heads)
    stored = Gather(past, layer)
    keys = Concat<axis=1>(stored, chunk)
    heads = Unsqueeze(keys, one)
    k_t = Transpose<perm=[0,1,3,2]>(heads)
    raw = MatMul(q, k_t)
    scaled = Mul(raw, scale)
    masked = Add(scaled, mask)
    p = Softmax<axis=-1>(masked)
    latent = Slice(heads, zero, R, axis)
    sums = MatMul(p, latent)
    w_t = Transpose<perm=[0,2,1]>(w_uv)
    v = MatMul(sums, w_t)
    rows = Transpose<perm=[0,2,1,3]>(v)
    y = Reshape(rows, shape)"""


def mla_row(T: int, S: int, arguments: argparse.Namespace) -> dict[str, Any]:
    H, R, P, nope = 8, 128, 32, 64
    inputs = {
        "q_nope": normal(1, T, H, nope), "q_rope": normal(1, T, H, P), "past": normal(4, 1, S, R + P),
        "layer": np.array(2), "chunk": normal(1, T, R + P), "positions": S + np.arange(T)[None],
        "past_lengths": np.array([S]), "kv_up": normal(H * 2 * nope, R),
    }  # fmt: skip
    attributes = f"<scale = {(nope + P) ** -0.5}, v_head_dim = {nope}>"
    kernel = runner(f"y = mythos.mla_attention{attributes}({', '.join(inputs)})", inputs, arguments.threads)
    stock_inputs = {k: v for k, v in inputs.items() if k not in ("positions", "past_lengths", "kv_up")}
    stock_inputs |= {
        "w": inputs["kv_up"].reshape(H, 2 * nope, R), "R": np.array([R]), "shape": np.array([1, T, H * nope]),
        "scale": np.array((nope + P) ** -0.5, np.float32),
        "mask": np.triu(np.full((T, S + T), -1e30, np.float32), S + 1)[None, None],
    }  # fmt: skip
    stock = runner(STOCK_MLA, stock_inputs, arguments.threads)
    keys = S + (T + 1) / 2
    products = min(T * R * 2 * nope + T * keys * (2 * R + P), (S + T) * R * 2 * nope + T * keys * (2 * nope + P))
    read = 4 * ((S + T) * (R + P) + H * 2 * nope * R)
    return compare(f"mla T={T} past={S} H=8 R=128 P=32", kernel, stock, round(H * products), read, arguments)


def compare(
    name: str,
    kernel: tuple[Callable[[], Any], Callable[[], Array]],
    stock: tuple[Callable[[], Any], Callable[[], Array]],
    products: int,
    read: int,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    kernel[0](), stock[0]()
    distance = float(np.linalg.norm(kernel[1]() - stock[1]()) / np.linalg.norm(stock[1]()))
    square = normal(1024, 1024)
    matrix, vector = normal(max(read // 4 // 1024, 1), 1024), normal(1024)
    calls = [kernel[0], stock[0], lambda: square @ square, lambda: matrix @ vector]
    ours, theirs, gemm, matvec = in_turns(calls, arguments.seconds)
    row = {
        "case": name,
        "kernel_us": round(ours * 1e6),
        "speedup_over_stock": round(theirs / ours, 2),
        "of_memory": round(read / ours / (matrix.nbytes / matvec), 2),
        "of_gemm": round(products / ours / (1024**3 / gemm), 2),
        "distance_from_stock": float(f"{distance:.1e}"),
    }
    print(f"{name:44} {ours * 1e6:9.0f} us  {theirs / ours:5.2f} x stock  {row['of_memory']:5.2f} of memory  "
          f"{row['of_gemm']:5.2f} of GEMM  distance {distance:.1e}", flush=True)  # fmt: skip
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each of a row's four figures")
    parser.add_argument("--big", action="store_true", help="also 64 experts of 2048 x 2048 (needs 10 GB)")
    arguments = parser.parse_args()
    rows = [moe_row(n, 512, 256, 16, 2, 1024, arguments) for n in (1, 8, 128)]
    if arguments.big:
        rows += [moe_row(n, 2048, 2048, 64, 4, 4096, arguments) for n in (1, 128)]
    rows += [mla_row(T, S, arguments) for T, S in ((1, 128), (1, 1024), (1, 4096), (128, 0))]
    print(json.dumps({"benchmark": "kernels_cpu", "threads": arguments.threads, "rows": rows}))


if __name__ == "__main__":
    main()
