"""The sentences at the head of a report: what a user decides from."""

from __future__ import annotations

from typing import Any

from mythos_export.bench.statistics import DECIDES
from mythos_export.report.format import percent, seconds


def verdict(document: dict[str, Any]) -> str:
    """The fastest for one token and for a prompt, how near to the machine's limit, and whether the run was quiet."""
    sentences = [text for kind in ("decode", "prefill") if (text := _of(document, kind))]
    if not document["noise"]["quiet"]:
        sentences.append(f"The machine was not quiet: {'; '.join(document['noise']['reasons'])}.")
    return " ".join(sentences)


def headline(document: dict[str, Any]) -> str:
    """The one sentence at the head: what a token and what a prompt costs here."""
    said = []
    for kind, what in (("decode", "the next token"), ("prefill", "a prompt of {tokens} tokens")):
        workload = main_workload(document, kind)
        medians = [row["median"] for row in document["rows"] if row["workload"] == workload]
        if medians:
            tokens = next(each["tokens"] for each in document["workloads"] if each["name"] == workload)
            said.append(f"{what.format(tokens=tokens)} takes {seconds(min(medians))}")
    text = " and ".join(said) or "nothing was measured"
    return f"{text[:1].upper()}{text[1:]}, with what was fastest here."


def _of(document: dict[str, Any], kind: str) -> str:
    workload = main_workload(document, kind)
    rows = [row for row in document["rows"] if row["workload"] == workload]
    if workload is None or not rows:
        return ""
    best = min(rows, key=lambda row: row["median"])
    text = f"{workload[:1].upper()}{workload[1:]}: {seconds(best['median'])} with {best['backend']}"
    if len(rows) > 1 and min(row["interval"]["coverage"] for row in rows) < DECIDES:
        text += f", the lowest median of {len(rows)}; too few rounds to tell which is the fastest"
    elif len(rows) > 1:
        # Whose interval reaches into the best one's is not slower, as far as this run can tell.
        reach = best["interval"]["high"]
        level = [row["backend"] for row in rows if row is not best and row["interval"]["low"] <= reach]
        text += f", {'level with ' + ' and '.join(level) + ' as ' if level else ''}the fastest of {len(rows)}"
        first = document["contestants"][0]["name"]
        if best["ratio"] is not None and best["backend"] != first:
            text += f" and {best['ratio']:.1f} times as fast as {first}"
    if best["fraction_of_limit"] is None:
        return f"{text}."
    return f"{text}, at {percent(best['fraction_of_limit'])} of what {best['bound_by']} allows here."


def main_workload(document: dict[str, Any], kind: str) -> str | None:
    """Of batch 1 at the trained depth, the middle size: the one that speaks for its kind."""
    trained = document["model"]["trained_loops"]
    measured = {row["workload"] for row in document["rows"]}
    fitting = [w for w in document["workloads"] if w["kind"] == kind and w["batch"] == 1 and w["name"] in measured]
    fitting = [w for w in fitting if w["depth"] == trained] or fitting
    fitting.sort(key=lambda w: (w["tokens"], w["held"]))
    return fitting[len(fitting) // 2]["name"] if fitting else None
