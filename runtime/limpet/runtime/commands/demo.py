"""`limpet demo`: the main job, here and now, on real recordings."""

from __future__ import annotations

from pathlib import Path

import click

from limpet.contracts.errors import MissingExtraError, UsageError
from limpet.runtime.commands import json_option

EXTRAS = ("training", "export", "dashboard")


@click.command(name="demo")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A recording of yours (.csv, .npy, .npz, .mat, …) instead of those that limpet brings.",
)
@click.option(
    "--train-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --data: the first N rows train [default: the first half]; the rest is streamed.",
)
@click.option("--key", metavar="NAME", help="With --data: array of an .npz or .mat.")
@click.option(
    "--ignore", multiple=True, metavar="NAME", help="With --data: column that is no channel."
)
@click.option("--label", metavar="NAME", help="With --data: label column, never a channel.")
@click.option("--rate-hz", type=float, metavar="HZ", help="With --data: its sampling rate.")
@click.option(
    "--speed",
    metavar="FACTOR",
    help="Times real time, or max [default: each recording in half a minute].",
)
@click.option("--steps", type=click.IntRange(min=1), help="Training steps [default: 200].")
@click.option(
    "--navigation",
    type=click.Path(path_type=Path),
    metavar="BUNDLE",
    help="A policy that drives a simulated robot meanwhile [default: the repository's, where there "
    "is one and no --data].",
)
@click.option(
    "--grasp",
    metavar="BUNDLE",
    help="A model that says what a picking robot should grasp meanwhile, or none [default: the "
    "repository's, where there is one and no --data].",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default="demo-output",
    show_default=True,
    help="Folder for everything; that of an earlier demo is replaced.",
)
@click.option("--keep-serving", is_flag=True, help="Leave the server running until Ctrl-C.")
@json_option
def command(
    data: Path | None,
    train_rows: int | None,
    key: str | None,
    ignore: tuple[str, ...],
    label: str | None,
    rate_hz: float | None,
    speed: str | None,
    steps: int | None,
    navigation: Path | None,
    grasp: str | None,
    out: Path,
    keep_serving: bool,
    json_file: Path | None,
) -> None:
    """Show the main job on real recordings: train, export, verify, serve, stream, alert.

    An encoder learns the normal beginning of each recording. A server with all of them then scores
    what follows, faster than real time, while a robot asks it for embeddings; alerts appear as they
    are published, with what the labels say to them. Where there is a navigation policy, it is
    served beside them and drives a simulated robot by its camera, closed loop; where there
    is a grasp model, a picking robot asks it what to grasp. Exits with 0 when all rows were
    acknowledged, nothing was dropped and every process ended well; missed faults and goals do not
    change that.

    --json writes: passed, failures, seconds, stage_s, streams, alerts, groups, robot, dropped,
    timeline, navigation, trajectories, picking, grasps (limpet.runtime.demo.report says what each
    holds).
    """
    from limpet.runtime.demo import picking
    from limpet.runtime.demo.navigation import has_policy, reference_bundle
    from limpet.runtime.demo.session import DemoOptions, run_demo
    from limpet.runtime.demo.sources import shipped_sources, user_source

    _check_extras()
    _check_speed(speed)
    if json_file is not None and not json_file.parent.is_dir():
        raise UsageError(f"--json {json_file}: no folder {json_file.parent}")
    if data is None:
        _check_unused(
            {
                "train-rows": train_rows,
                "key": key,
                "ignore": ignore,
                "label": label,
                "rate-hz": rate_hz,
            }
        )
        sources = shipped_sources()
        navigation = navigation or reference_bundle()
    else:
        sources = [
            user_source(
                data, train_rows=train_rows, key=key, ignore=ignore, label=label, rate_hz=rate_hz
            )
        ]
    if navigation is not None and not has_policy(navigation):
        raise UsageError(f"--navigation {navigation}: this bundle has no policy")
    grasp_bundle = None if grasp in (None, "none") else Path(grasp)
    if grasp is None and data is None:
        grasp_bundle = picking.reference_bundle()
    if grasp_bundle is not None and not picking.finds_grasps(grasp_bundle):
        raise UsageError(f"--grasp {grasp_bundle}: this bundle finds no grasps")
    passed = run_demo(
        sources,
        DemoOptions(
            out=out,
            speed=speed,
            steps=steps,
            keep_serving=keep_serving,
            json_file=json_file,
            navigation=navigation,
            grasp=grasp_bundle,
        ),
    )
    if not passed:
        raise click.exceptions.Exit(1)


def _check_extras() -> None:
    """Raises `MissingExtraError` before anything is done, naming all that is missing."""
    from importlib.util import find_spec

    from limpet.runtime.extras import module_of, requirements

    missing = {
        extra: [module_of(name) for name in requirements()[extra] if not find_spec(module_of(name))]
        for extra in EXTRAS
    }
    missing = {extra: modules for extra, modules in missing.items() if modules}
    if missing:
        modules = dict.fromkeys(module for names in missing.values() for module in names)
        raise MissingExtraError(",".join(missing), ", ".join(modules))


def _check_speed(speed: str | None) -> None:
    """Refuses at once what `limpet stream` would refuse after training."""
    if speed in (None, "max"):
        return
    try:
        factor = float(speed or "")
    except ValueError:
        factor = 0.0
    if not 0.0 < factor < 1e9:
        raise UsageError(f"--speed {speed!r} is neither a positive number nor `max`")


def _check_unused(options: dict[str, object]) -> None:
    given = [f"--{name}" for name, value in options.items() if value]
    if given:
        raise UsageError(
            f"{', '.join(given)} says how to read a file of yours", "name it with --data FILE"
        )
