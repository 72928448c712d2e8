"""The demo's stages, from recordings to a report: each is what a user would type."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.errors import MissingExtraError
from limpet.contracts.messages import Alert
from limpet.contracts.scores_file import read_scores
from limpet.runtime.demo import picking
from limpet.runtime.demo.children import Child, ChildError, Children
from limpet.runtime.demo.console import Console
from limpet.runtime.demo.driving import DriveReport
from limpet.runtime.demo.folder import DemoFolder
from limpet.runtime.demo.navigation import Navigation, describe, failures_of
from limpet.runtime.demo.pick import PickReport
from limpet.runtime.demo.report import DemoReport, StreamReport, group_reports
from limpet.runtime.demo.results import (
    Streamed,
    Trained,
    Verified,
    group_notes,
    make_track,
    read_result,
)
from limpet.runtime.demo.robot import RATE_HZ, RobotReport
from limpet.runtime.demo.sources import Source
from limpet.runtime.demo.timeline import Track, draw_timeline
from limpet.runtime.demo.watch import Watch

STAGES = 5
STEPS = 200
"""Training steps, some twenty seconds of one core."""
STREAM_S = 30.0
"""Seconds in which a recording is streamed, unless the user names a speed."""
READY_S = 60.0
ROBOT_ROWS = 512


class Pipeline:
    """One run of the demo.

    Args:
        sources: What is trained on and streamed.
        folder: Where everything goes.
        children: Runs the processes.
        console: Says what happens.
        speed: Times real time, or `max`; None streams each recording in `STREAM_S`.
        steps: Training steps.
        navigation: Bundle of a policy that drives a simulated robot meanwhile; None: none.
        grasp: Bundle of a model that a picking robot asks meanwhile; None: none.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        folder: DemoFolder,
        children: Children,
        console: Console,
        *,
        speed: str | None = None,
        steps: int = STEPS,
        navigation: Path | None = None,
        grasp: Path | None = None,
    ) -> None:
        self._sources, self._folder, self._children = sources, folder, children
        self._console, self._speed, self._steps = console, speed, steps
        self._width = max(len(source.name) for source in sources)
        self._navigation = navigation and Navigation(navigation, folder, children)
        self._picking = grasp and picking.Picking(grasp, folder, children)
        self._trained: dict[str, Trained] = {}
        self.endpoint = ""
        """Where the server listens, once it does."""
        self.server: Child | None = None

    def run(self) -> DemoReport:
        """Runs all stages; the server is left running.

        Raises:
            ChildError: A process failed.
            LimpetError: A recording cannot be used.
        """
        began_s = time.monotonic()
        self._train()
        self._export()
        self._verify()
        self._serve()
        with Watch(self.endpoint, self._sources, self._console, self._folder.alerts) as watch:
            failures, robot, drive, pick, dropped = self._stream(watch)
            alerts = watch.alerts
        tracks = [self._track(source, alerts) for source in self._sources]
        draw_timeline(self._folder.timeline, tracks)
        streams = [track.report for track in tracks]
        failures += find_failures(streams, robot, dropped)
        failures += failures_of(drive) if drive else []
        failures += picking.failures_of(pick) if pick else []
        report = DemoReport(
            passed=not failures,
            failures=failures,
            seconds=round(time.monotonic() - began_s, 3),
            stage_s=self._console.stage_s,
            streams=streams,
            alerts=len(alerts),
            groups=group_reports(alerts),
            robot=robot,
            dropped=dropped,
            timeline=str(self._folder.timeline),
            navigation=drive,
            trajectories=str(self._folder.trajectories) if drive else "",
            picking=pick,
            grasps=str(self._folder.grasps) if pick else "",
        )
        self._folder.summary.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        return report

    def _train(self) -> None:
        with self._console.stage("train", "an encoder learns what normal looks like"):
            children = [
                self._children.limpet(
                    f"train-{source.name}", "train", "anomaly", "--data", source.path,
                    "--train-rows", str(source.first_row), "--steps", str(self._steps),
                    "--out", self._folder.run(source.name),
                    "--json", self._log("train", source.name), *source.settings, *source.options,
                )
                for source in self._sources
            ]  # fmt: skip
            self._wait(children)
            for source in self._sources:
                trained = read_result(self._log("train", source.name), Trained)
                self._trained[source.name] = trained
                threshold = trained.calibration
                self._fact(
                    source.name,
                    f"{source.first_row:,} rows, {self._steps} steps; threshold "
                    f"{threshold.threshold:.2f}, which {threshold.false_alarm_rate:.1%} of "
                    f"{threshold.held_out_rows:,} normal rows, scored unseen, reach",
                )
                for note in group_notes(trained.warnings):
                    self._fact(source.name, f"note: {note}", dim=True)

    def _export(self) -> None:
        with self._console.stage("export", "one folder with everything that a robot needs"):
            self._wait(
                [
                    self._children.limpet(
                        f"export-{source.name}", "export", self._folder.run(source.name),
                        "--out", self._folder.bundle(source.name),
                    )
                    for source in self._sources
                ]
            )  # fmt: skip
            for source in self._sources:
                bundle = self._folder.bundle(source.name)
                size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
                self._fact(source.name, f"{bundle}, {size / 1e6:.1f} MB")

    def _verify(self) -> None:
        with self._console.stage("verify", "this machine computes what training computed"):
            bundles = {source.name: self._folder.bundle(source.name) for source in self._sources}
            if self._navigation:
                bundles[Navigation.MODEL] = self._navigation.bundle
            if self._picking:
                bundles[picking.Picking.MODEL] = self._picking.bundle
            self._wait(
                [
                    self._children.limpet(
                        f"verify-{name}", "verify", bundle, "--json", self._log("verify", name)
                    )
                    for name, bundle in bundles.items()
                ]
            )
            for name in bundles:
                verified = read_result(self._log("verify", name), Verified)
                self._fact(name, f"{len(verified.checks)} checks passed on {verified.engine}")

    def _serve(self) -> None:
        with self._console.stage("serve", "one server for all encoders"):
            more = [part.table for part in (self._navigation, self._picking) if part]
            config = _config(self._sources, more)
            self._folder.config.write_text(config, encoding="utf-8")
            self.server = self._children.limpet("serve", "serve", self._folder.config)
            self._show([self.server])
            ready = self._children.wait_for_line(self.server, "ready ", READY_S)
            self.endpoint = ready.split()[0]
            self._console.fact(f"listening on {self.endpoint}")

    def _stream(
        self, watch: Watch
    ) -> tuple[list[str], RobotReport, DriveReport | None, PickReport | None, dict[str, int]]:
        """Plays the recordings; what failed, what the robots met, what the server dropped."""
        what = f"sensors play what follows, a robot asks for embeddings {RATE_HZ:g} times a second"
        with self._console.stage("stream", what):
            robot = self._start_robot()
            self._start_mobile_robot()
            if self._picking:
                self._picking.start(self.endpoint)
                self._console.fact(f"a picking robot asks {picking.Picking.MODEL} what to grasp")
            sensors = [self._start_sensor(source) for source in self._sources]
            self._show(sensors)

            def step() -> None:
                assert self.server is not None
                self.server.check_alive()
                robot.check_alive()
                if self._navigation:
                    self._navigation.check_alive()
                if self._picking:
                    self._picking.check_alive()
                watch.step()

            self._children.wait(sensors, step, every_s=0.0)
            watch.finish()
            drive = self._navigation.stop() if self._navigation else None
            if drive:
                self._fact(Navigation.MODEL, describe(drive))
            pick = self._picking.stop() if self._picking else None
            if pick:
                self._fact(picking.Picking.MODEL, picking.describe(pick))
            status = watch.status()
            self._children.stop(robot)
        dropped = {
            name.removeprefix("dropped."): count
            for name, count in status.counters.items()
            if name.startswith("dropped.")
        }
        failures = []
        if [alert.sequence for alert in watch.alerts] != list(range(1, len(watch.alerts) + 1)):
            failures.append("alerts did not arrive each once and in order")
        robot_report = read_result(self._folder.logs / "robot.json", RobotReport)
        return failures, robot_report, drive, pick, dropped

    def _start_mobile_robot(self) -> None:
        if not self._navigation:
            return
        self._console.fact(f"a simulated robot drives by what {Navigation.MODEL} sees")
        try:
            self._navigation.start(self.endpoint)
        except MissingExtraError as error:
            self._console.fact(f"{Navigation.MODEL} left out: {error}")

    def _start_robot(self) -> Child:
        rows = {}
        for source in self._sources:
            values = source.recording.values[-ROBOT_ROWS:]
            rows[source.name] = np.where(np.isfinite(values), values, 0.0).astype(np.float32)
        np.savez(self._folder.logs / "robot_rows.npz", **rows)  # type: ignore[arg-type]
        robot = self._children.start(
            "robot", "limpet.runtime.demo.robot", self.endpoint,
            self._folder.logs / "robot_rows.npz", self._folder.logs / "robot.json",
        )  # fmt: skip
        self._children.wait_for_line(robot, "ready", READY_S)
        return robot

    def _start_sensor(self, source: Source) -> Child:
        seconds = len(source.streamed) / source.streamed.rate_hz
        speed = self._speed or f"{max(1.0, seconds / STREAM_S):.6g}"
        return self._children.limpet(
            f"sensor-{source.name}", "stream", source.path, "--to", self.endpoint,
            "--stream", source.name, "--speed", speed, "--from-row", str(source.first_row),
            "--out", self._folder.scores(source.name),
            "--json", self._log("stream", source.name), *source.options,
        )  # fmt: skip

    def _track(self, source: Source, alerts: Sequence[Alert]) -> Track:
        return make_track(
            source,
            self._trained[source.name],
            read_result(self._log("stream", source.name), Streamed),
            read_scores(self._folder.scores(source.name)),
            [alert for alert in alerts if alert.stream == source.name],
        )

    def _show(self, children: Sequence[Child]) -> None:
        """What a user would type for the same."""
        for child in children:
            text = shlex.join(child.arguments)
            for source in self._sources:
                text = text.replace(str(source.path), source.shortest_path)
            typed = re.sub(r" --json \S+", "", text)
            self._console.fact(f"$ limpet {typed}", dim=True)

    def _wait(self, children: Sequence[Child]) -> None:
        self._show(children)

        def show() -> None:
            steps = {c.name: re.search(r"\d+/\d+ .*", c.last_line()) for c in children}
            shown = [
                f"{name.removeprefix('train-')} {found[0]}"
                for name, found in steps.items()
                if found
            ]
            if shown:
                self._console.status("   ".join(shown))

        self._children.wait(children, show)

    def _fact(self, name: str, text: str, *, dim: bool = False) -> None:
        self._console.fact(f"{name:<{self._width}}  {text}", dim=dim)

    def _log(self, what: str, name: str) -> Path:
        return self._folder.logs / f"{what}-{name}.json"


def find_failures(
    streams: Sequence[StreamReport], robot: RobotReport, dropped: Mapping[str, int]
) -> list[str]:
    """What did not work, one sentence each. A fault that was not detected is no failure."""
    failures = [
        f"{stream.name}: {stream.acknowledged} of {stream.rows} rows acknowledged"
        for stream in streams
        if stream.acknowledged != stream.rows
    ]
    # A stale answer is the server keeping its word to the robot; everything else is a loss.
    failures += [
        f"the server dropped {count}: {reason}"
        for reason, count in dropped.items()
        if count and not reason.startswith("stale_")
    ]
    if robot.failed or not robot.answered:
        failures.append(f"robot: {robot.failed} of {robot.requests} requests failed")
    return failures


def stop_server(pipeline: Pipeline, children: Children) -> list[str]:
    """Tells the server to stop, and says what went wrong with that."""
    assert pipeline.server is not None
    try:
        children.stop(pipeline.server)
    except ChildError as error:
        return [error.message]
    return []


def _config(sources: Sequence[Source], more_models: Sequence[str]) -> str:
    tables = [
        '[server]\nname = "demo"\nlisten = ["tcp://127.0.0.1:0"]  # 0 takes a free port\n'
        'publish = ["tcp://127.0.0.1:0"]\nstate_dir = "state"\n'
    ]
    tables += [
        f'[[models]]\nname = "{source.name}"\nbundle = "bundles/{source.name}"\n'
        for source in sources
    ]
    tables += more_models
    tables += [
        f'[[streams]]\nmatch = "{source.name}"\nmodel = "{source.name}"\n' for source in sources
    ]
    return "\n".join([*tables, '[[streams]]  # any other: say which --model\nmatch = "*"\n'])
