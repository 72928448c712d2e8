"""A demo from its first line to its last: what is played, the pipeline, the summary, the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from limpet.contracts.incidents import labelled_intervals
from limpet.contracts.reports import write_json
from limpet.runtime.demo import picking
from limpet.runtime.demo.children import Children, termination_interrupts
from limpet.runtime.demo.console import Console
from limpet.runtime.demo.folder import DemoFolder, open_folder
from limpet.runtime.demo.navigation import Navigation
from limpet.runtime.demo.pipeline import STAGES, STEPS, Pipeline, stop_server
from limpet.runtime.demo.report import DemoReport, format_report
from limpet.runtime.demo.sources import Source


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """What `limpet demo` was told.

    Attributes:
        out: Folder for everything.
        speed: Times real time, or `max`; None for the default.
        steps: Training steps; None for the default.
        keep_serving: Whether the server stays until Ctrl-C.
        json_file: Where the report goes as well.
        navigation: Bundle of a policy that drives a simulated robot; None: none.
        grasp: Bundle of a model that says what to grasp; None: none.
    """

    out: Path
    speed: str | None = None
    steps: int | None = None
    keep_serving: bool = False
    json_file: Path | None = None
    navigation: Path | None = None
    grasp: Path | None = None


def run_demo(sources: Sequence[Source], options: DemoOptions) -> bool:
    """Runs the demo and leaves no process behind.

    Returns:
        Whether the pipeline worked.

    Raises:
        UsageError: `out` may not be written.
        DataError: A recording cannot be used.
        ChildError: A process failed.
    """
    console = Console(STAGES, quiet=str(options.json_file) == "-")
    for source in sources:
        _ = source.streamed  # a file that cannot be used is refused before anything is written
    with termination_interrupts(), open_folder(options.out) as folder:
        _introduce(console, sources)
        if options.navigation is not None:
            console.line(
                f"  {Navigation.MODEL}: a policy that drives a simulated robot by its camera"
            )
            console.line(f"    {options.navigation}")
        if options.grasp is not None:
            console.line(
                f"  {picking.Picking.MODEL}: a model that says what a picking robot should grasp"
            )
            console.line(f"    {options.grasp}")
        with Children(folder.logs) as children:
            pipeline = Pipeline(
                sources, folder, children, console,
                speed=options.speed, steps=options.steps or STEPS, navigation=options.navigation,
                grasp=options.grasp,
            )  # fmt: skip
            report = pipeline.run()
            if not options.keep_serving:
                report = _with_failures(folder, report, stop_server(pipeline, children))
            _conclude(console, folder, report, sources)
            write_json(options.json_file, report)
            if options.keep_serving:
                _keep_serving(console, pipeline, sources)
                return report.passed and not stop_server(pipeline, children)
    return report.passed


def _introduce(console: Console, sources: Sequence[Source]) -> None:
    console.line("limpet demo: from recordings of sensors to live alerts", bold=True)
    console.line()
    for source in sources:
        recording, streamed = source.recording, source.streamed
        channels = len(recording.channels)
        console.line(f"  {source.name}: {source.title}")
        console.line(
            f"    {len(recording):,} rows of {channels} channel{'s' * (channels != 1)}: the first "
            f"{source.first_row:,} train, {len(streamed):,} are streamed"
        )
        if recording.left_out:
            console.line(f"    left out, no channels: {', '.join(recording.left_out)}")
        if streamed.labels is None:
            console.line("    no labels: nothing to compare alerts with")
        else:
            count = len(labelled_intervals(streamed.labels))
            console.line(
                f"    labelled anomalous: {count} interval{'s' * (count != 1)}, "
                f"{source.duration(int(streamed.labels.sum()))} in all; the encoder never sees them"
            )
        if (
            source.recording.labels is not None
            and source.recording.labels[: source.first_row].any()
        ):
            console.line("    careful: some rows that train are labelled anomalous")


def _conclude(
    console: Console, folder: DemoFolder, report: DemoReport, sources: Sequence[Source]
) -> None:
    console.line()
    console.line(f"Summary, after {report.seconds:.0f} s", bold=True)
    console.line()
    for line in format_report(report, sources).splitlines():
        console.line(f"  {line}".rstrip())
    console.line()
    console.line(f"  picture  {report.timeline}")
    if report.trajectories:
        console.line(f"  ways     {report.trajectories}")
    if report.grasps:
        console.line(f"  grasps   {report.grasps}")
    console.line(f"  figures  {folder.summary}")
    console.line(
        f"  bundles  {folder.path / 'bundles'}, to serve again: limpet serve {folder.config}"
    )
    console.line()
    if report.passed:
        console.line("The pipeline worked from end to end.", fg="green")
    for failure in report.failures:
        console.line(f"FAILED: {failure}", fg="red")


def _with_failures(folder: DemoFolder, report: DemoReport, failures: list[str]) -> DemoReport:
    if not failures:
        return report
    report = msgspec.structs.replace(report, passed=False, failures=[*report.failures, *failures])
    folder.summary.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    return report


def _keep_serving(console: Console, pipeline: Pipeline, sources: Sequence[Source]) -> None:
    """Waits for Ctrl-C, or for the server's end."""
    source = sources[0]
    console.line()
    console.line(f"The server stays at {pipeline.endpoint} until Ctrl-C. Elsewhere, type:")
    console.line(f"  limpet alerts --from {pipeline.endpoint} --since 0")
    console.line(
        f"  limpet stream {source.shortest_path} --to {pipeline.endpoint} --stream again "
        f"--model {source.name} --speed max"
    )
    assert pipeline.server is not None
    try:
        while not pipeline.server.has_ended:
            time.sleep(0.2)
    except KeyboardInterrupt:
        console.line("stopping")
