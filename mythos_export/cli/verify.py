"""`mythos verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mythos_export.cli.show import show_parity
from mythos_runtime.cli.progress import steps
from mythos_runtime.cli.terminal import Command, bounded_threads, err, escape, examples, out, write
from mythos_runtime.engine.sequence import Policy
from mythos_runtime.errors import BundleError
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.outputs import check_folder_place, writing

FRESH_CASES = 24


@click.command(
    cls=Command,
    short_help="Hold a BUNDLE to the model that it was made from.",
    epilog=examples(
        "mythos verify BUNDLE --report parity/",
        "mythos verify BUNDLE --against CHECKPOINT --cases 100 --seed 1",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path, readable=False), required=False)
@click.option(
    "--against", type=click.Path(path_type=Path), help="The checkpoint: draws fresh cases for eager to answer."
)
@click.option("--cases", type=click.IntRange(min=1), help=f"Fresh cases, with --against [default: {FRESH_CASES}].")
@click.option("--seed", type=int, help="Of the fresh cases, with --against [default: 0].")
@click.option("--config", type=click.Path(path_type=Path), help="With --against: the model's, not the checkpoint's.")
@click.option(
    "--other-file", is_flag=True, help="With --against: go on where that is not the file that the bundle was made from."
)
@click.option("--policy", type=click.Choice(["share"]), help="Instead: what this cache policy costs on --data.")
@click.option("--data", type=click.Path(path_type=Path), help="With --policy: safetensors with input_ids [Q, T].")
@click.option("--repro", type=click.Path(path_type=Path), help="Replay the reproduction of a failure, a folder.")
@click.option("--report", type=click.Path(path_type=Path), help="Write parity.html and parity.json into this folder.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def verify(
    bundle: Path | None,
    repro: Path | None,
    policy: Policy | None,
    data: Path | None,
    threads: int | None,
    other_file: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Hold every stage of a BUNDLE to the float64 model, inside the loop too, on this machine.

    Runs the bundle's golden cases; with --against, also fresh ones that the checkpoint answers; and every operator of
    this machine's CPU library at the sizes where its kernels take another path. A failure leaves a
    reproduction beside it in BUNDLE.repro, cut down to what shows it, which --repro replays.

    With --policy share, the bundle is not held to anything: the same tokens are read with every cache entry and with
    the policy, and what that costs is printed.
    """
    if (bundle is None) == (repro is None):
        raise click.UsageError("give a BUNDLE, or --repro with the folder of a reproduction")
    if (policy is None) != (data is None):
        raise click.UsageError("--policy and --data go together: what a policy costs depends on the data")
    given = [f"--{name}" for name, value in options.items() if value is not None] + ["--other-file"] * other_file
    if repro is not None and given:
        raise click.UsageError(f"{given[0]} goes with a BUNDLE; --repro replays what the reproduction holds")
    alone = [name for name in given if name in ("--cases", "--seed", "--config", "--other-file")]
    if options["against"] is None and alone:
        raise click.UsageError(f"{alone[0]} needs --against: fresh cases are answered by the checkpoint's model")
    threads = bounded_threads(threads)
    if policy is not None and (repro is not None or given):
        raise click.UsageError(f"{'--repro' if repro is not None else given[0]} does not go with --policy")
    if policy is not None and bundle is not None and data is not None:
        _policy(bundle, policy, data, threads, as_json)
    elif repro is not None:
        _replay(repro, threads, as_json)
    elif bundle is not None:
        _verify(bundle, threads, as_json, other_file, **options)


def _policy(bundle: Path, policy: Policy, data: Path, threads: int | None, as_json: bool) -> None:
    from mythos_export.verify.policy import cost_of_policy

    with steps() as step:
        step(f"read {data.name} with and without the policy")
        cost = cost_of_policy(bundle, policy, data, threads, step.phase)
    out.print(cost.sentence, highlight=False)
    if as_json:
        write(json.dumps(cost.to_json()) + "\n")


def _verify(
    bundle: Path,
    threads: int | None,
    as_json: bool,
    other_file: bool,
    against: Path | None,
    cases: int | None,
    seed: int | None,
    config: Path | None,
    report: Path | None,
) -> None:
    from mythos_export.verify.against import fresh_cases
    from mythos_export.verify.golden import GOLDEN, load_golden
    from mythos_export.verify.page import check_place, write_reports
    from mythos_export.verify.run import verify_bundle

    manifest = read_manifest(bundle)
    if report is not None:
        check_place(report, bundle, manifest)
        check_folder_place(report, "--report")
    if against is not None and manifest.doubt is not None:
        _verify_later(bundle, manifest, against, config, other_file, as_json)
        return
    if against is None and manifest.doubt is not None:
        raise BundleError(f"{bundle}: {manifest.doubt}")
    if against is None and GOLDEN not in manifest.files:
        why = "was exported without its golden cases (--parts)"
        if GOLDEN in manifest.missing:
            why = f"lacks its golden cases, {GOLDEN}"
        raise BundleError(f"{bundle} {why}; give its checkpoint with --against, to have fresh ones drawn")
    with steps() as step:
        golden = load_golden(bundle / GOLDEN, manifest.spec) if GOLDEN in manifest.files else None
        if against is not None:
            step("answer fresh cases with the eager model")
            fresh, weights = fresh_cases(manifest, against, config, cases or FRESH_CASES, seed or 0, other_file)
            golden = fresh if golden is None else golden.joined(fresh)
            if weights is not None:
                err.print(weights, style="yellow", markup=False, highlight=False)
        place = bundle.resolve()
        place = place.with_name(f"{place.name}.repro")
        parity = verify_bundle(bundle, manifest, step, threads, golden=golden, reproductions=place, kernels=True)
    show_parity(parity)
    if report is not None:
        with writing(report, "--report"):
            write_reports(report, parity, manifest)
        out.print(f"report: {report / 'parity.html'}")
    if as_json:
        write(json.dumps(parity.to_json()) + "\n")
    parity.raise_unless_passed()


def _verify_later(
    bundle: Path, manifest: Manifest, against: Path, config: Path | None, other_file: bool, as_json: bool
) -> None:
    """What an export with --verify later left out: its golden cases and reports go into the bundle."""
    from mythos_export.verification import verify_later

    with steps() as step:
        verified = verify_later(bundle, manifest, against, config, step, other_file)
    assert verified.parity is not None
    show_parity(verified.parity)
    out.print(f"{bundle} is {verified.bundle.manifest.targets[0].state}.", highlight=False)
    if as_json:
        write(json.dumps(verified.parity.to_json()) + "\n")


def _replay(folder: Path, threads: int | None, as_json: bool) -> None:
    from mythos_export.errors import ParityError
    from mythos_export.verify.reproduction import replay

    replayed = replay(folder, threads)
    about, problem = replayed.about, replayed.problem
    at = f", iteration {about['iteration']}" if about["iteration"] is not None else ""
    out.print(f"stage {about['stage']}, case '{escape(about['case'])}'{at}, tensor {about['tensor']}", highlight=False)
    out.print(f"then: {escape(about['found_then'])}", highlight=False)
    out.print(f"now:  {escape('equal' if problem is None else problem.text)}", highlight=False)
    if as_json:
        write(json.dumps(replayed.to_json()) + "\n")
    if problem is not None:
        raise ParityError(f"the failure is still there: {problem.text}")
