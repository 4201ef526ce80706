"""The table of docs/performance.md that `python -m benchmarks.real_size` measured."""

from __future__ import annotations

from typing import Any

NAME = "real_size.json"  # in benchmarks/results
FORMS = {
    "int4a8": "int4, activations in int8",
    "int4": "int4",
    "int8a8": "int8, activations in int8",
    "int8": "int8",
}
THREADS = {1: "one thread", 2: "two threads"}


def table(document: dict[str, Any]) -> str:
    """Of every precision and number of threads a row: milliseconds a token by depth, and llama.cpp's."""
    machine = document["machine"]
    rates = sorted(_wall(result)["read_bytes_per_second"] / 1e9 for result in document["results"])
    lines = [
        f"{machine['cpu']} with {', '.join(machine['vector_instructions'])}, two cores, {machine['at'][:10]}; memory "
        f"was read at {rates[0]:.0f} to {rates[-1]:.0f} GB/s ([all figures](../benchmarks/results/{NAME}), "
        "`python -m benchmarks.real_size`):",
        "",
        "| | 1 pass | 2 passes | 4 passes | tokens/s | of the byte limit | mean token with exits (mean passes) "
        "| llama.cpp, dense | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    chosen = {(result["precision"], result["threads"]): result for result in document["results"]}
    for form, said in FORMS.items():
        lines += [
            _row(f"{said}, {words}", chosen[form, count]) for count, words in THREADS.items() if (form, count) in chosen
        ]
    return "\n".join(lines)


def _wall(result: dict[str, Any]) -> dict[str, Any]:
    wall: dict[str, Any] = result["summary"]["wall"]
    return wall


def _row(name: str, result: dict[str, Any]) -> str:
    lines = _wall(result)["lines"]
    passes = [lines[each] for each in ("1 passes", "2 passes", "4 passes")]
    exits = next(each for each in lines if each.startswith("exits, "))
    depth = exits.removeprefix("exits, ").removesuffix(" passes")
    llama = lines.get("llama.cpp, dense")
    cells = [f"{each['ms']:.0f} ms" for each in passes]
    cells += [f"{1e3 / passes[-1]['ms']:.1f}", f"{passes[-1]['share']:.0%}"]
    cells += [f"{lines[exits]['ms']:.0f} ms ({depth})"]
    cells += ["not measured" if llama is None else f"{llama['ms']:.0f} ms, {llama['share']:.0%}"]
    cells += [f"{result['summary']['peak_bytes']['ours'] / 1e9:.1f} GB"]
    return f"| {name} | {' | '.join(cells)} |"
