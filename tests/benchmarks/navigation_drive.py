"""A served policy that drives: through the wire against in process, on the same episodes.

    python -m tests.benchmarks.navigation_drive robot_configs/bundles/navigation \
      --json tests/benchmarks/results/navigation_drive.json

One server, a process of its own, serves the policy and every other bundle beside it; meanwhile a
sensor node streams through the anomaly encoder, and a picking robot asks the grasp encoder again as
soon as it has been answered. Each episode is driven three times, one after the
other: in this process without a server; through ZeroMQ, as fast as answers come; and through ZeroMQ
at 20 Hz of real time (the first `--real-time` episodes). Layouts and appearances were never trained
in. A difference between the first two is the wire's; the third adds what lateness does. Stale is
what the server would not answer or the robot would not act on; the oldest image acted on must be
younger than the action's validity.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from limpet.contracts.bundle import read_bundle
from limpet.contracts.reports import format_table, write_json
from limpet.runtime.client import RobotClient
from limpet.runtime.demo.children import Child, Children
from limpet.runtime.demo.drive import MAX_AGE_S
from limpet.runtime.demo.driving import Drive, DriveReport
from limpet.runtime.demo.pick import PickReport
from limpet.runtime.engines import open_engine
from limpet.runtime.machine import describe_machine
from limpet.runtime.mobile_robot import MobileRobot
from limpet.training.navigation.scenes import SceneLibrary
from limpet.training.navigation.simulator import CONTROL_HZ, UNSEEN, Simulator
from tests.runtime.driving import LocalDriver

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = REPOSITORY / "robot_configs" / "bundles"
RECORDING = REPOSITORY / "runtime/limpet/runtime/demo/recordings/machine_temperature.csv"
STREAM_SPEED = 6000
"""Times real time: 20 rows a second instead of one in five minutes."""
MODEL, GRASP = "navigation", "grasp"
PATIENT_S = 1.0
"""Oldest image where nothing sets the pace."""
LOCAL, WIRE, REAL_TIME = "in process", "ZeroMQ", f"ZeroMQ at {CONTROL_HZ:g} Hz"


def serve(children: Children, folder: Path, bundle: Path) -> tuple[str, list[str]]:
    """Starts a server of all encoders and a sensor; its endpoint and the models' names."""
    others = [path for path in sorted(BUNDLES.iterdir()) if path.resolve() != bundle.resolve()]
    names = {MODEL: bundle, **{path.name: path for path in others if path.name != MODEL}}
    tables = [
        '[server]\nlisten = ["tcp://127.0.0.1:0"]\npublish = ["tcp://127.0.0.1:0"]\n'
        'state_dir = "state"\n',
        *(f'[[models]]\nname = "{name}"\nbundle = "{path}"\n' for name, path in names.items()),
    ]
    (folder / "serve.toml").write_text("\n".join(tables))
    server = children.limpet("serve", "serve", folder / "serve.toml")
    endpoint = children.wait_for_line(server, "ready ", 60.0).split()[0]
    return endpoint, list(names)


def stream(children: Children, endpoint: str, number: int) -> Child:
    """Starts a sensor node."""
    return children.limpet(
        f"sensor-{number}", "stream", RECORDING, "--to", endpoint, "--stream", f"press-{number}",
        "--model", "anomaly", "--speed", str(STREAM_SPEED),
    )  # fmt: skip


def pick(children: Children, folder: Path, endpoint: str) -> Callable[[], PickReport]:
    """Starts a picking robot; what is returned stops it, and gives what it came to."""
    report = folder / "picks.json"
    robot = children.start(
        "picking-robot", "limpet.runtime.demo.pick", endpoint, GRASP, BUNDLES / GRASP,
        report, folder / "picks.npy",
    )  # fmt: skip
    children.wait_for_line(robot, "ready", 60.0)

    def stop() -> PickReport:
        children.stop(robot)
        return msgspec.json.decode(report.read_bytes(), type=PickReport)

    return stop


def drive_all(
    drives: dict[str, Drive], episodes: int, real_time: int, children: Children, endpoint: str
) -> None:
    """Drives each episode by every arm, while a sensor streams."""
    sensors = [stream(children, endpoint, 0)]
    for number in range(episodes):
        if sensors[-1].has_ended:
            sensors[-1].check()
            sensors.append(stream(children, endpoint, len(sensors)))
        ends = {}
        for name, drive in drives.items():
            if name != REAL_TIME or number < real_time:
                drive.run([number])
                ends[name] = drive.episodes[-1].success
        print(f"episode {number + 1}/{episodes}: {ends}", flush=True)


def paired(one: DriveReport, other: DriveReport) -> dict[str, Any]:
    """How two arms end on the episodes that both drove."""
    ends = {episode.number: episode for episode in one.episodes}
    pairs = [(ends[e.number], e) for e in other.episodes if e.number in ends]
    return {
        "episodes": len(pairs),
        "sr_difference": sum(b.success - a.success for a, b in pairs) / len(pairs),
        "only_first": sum(a.success and not b.success for a, b in pairs),
        "only_second": sum(b.success and not a.success for a, b in pairs),
        "same_way": sum(abs(a.driven_m - b.driven_m) < 1e-3 for a, b in pairs),
    }


def row(name: str, report: DriveReport) -> list[str]:
    """One arm for a person."""
    milliseconds = [
        "" if value is None else f"{value:.1f}" for value in (report.p50_ms, report.p99_ms)
    ]
    return [
        name,
        str(len(report.episodes)),
        f"{report.sr:.3f}",
        f"{report.spl:.3f}",
        f"{report.reached_hz:.1f}",
        *milliseconds,
        str(sum(report.stale.values()) + report.late),
        str(sum(report.stops.values())),
        f"{report.oldest_followed_ms:.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--real-time", type=int, default=40, metavar="N")
    parser.add_argument("--textures", type=Path, help="folder of images for appearances")
    parser.add_argument("--json", type=Path, dest="json_file")
    options = parser.parse_args(arguments)
    bundle = read_bundle(options.bundle.absolute())
    library = SceneLibrary(options.textures, geometries=4, painted=4)
    local = LocalDriver(bundle.manifest, open_engine(bundle, "auto").run, CONTROL_HZ)
    with tempfile.TemporaryDirectory() as scratch, Children(Path(scratch)) as children:
        endpoint, served = serve(children, Path(scratch), bundle.path)
        stop_picking = pick(children, Path(scratch), endpoint)
        frame_s = 1.0 / CONTROL_HZ
        with (
            MobileRobot(
                endpoint, MODEL, camera="patient", max_age_s=PATIENT_S, frame_s=frame_s
            ) as patient,
            MobileRobot(endpoint, MODEL, camera="steady", max_age_s=MAX_AGE_S) as steady,
        ):
            drives = {
                LOCAL: Drive(Simulator(UNSEEN, library=library), local, None),
                WIRE: Drive(Simulator(UNSEEN, library=library), patient, None),
                REAL_TIME: Drive(Simulator(UNSEEN, library=library), steady, CONTROL_HZ),
            }
            drive_all(drives, options.episodes, options.real_time, children, endpoint)
            ages = {LOCAL: 0.0, WIRE: PATIENT_S, REAL_TIME: MAX_AGE_S}
            arms = {name: drive.report(MODEL, ages[name]) for name, drive in drives.items()}
        picked = stop_picking()
        with RobotClient(endpoint) as asking:
            status = asking.status()
    columns = ["", "episodes", "SR", "SPL", "Hz", "p50 ms", "p99 ms", "stale", "stops", "oldest ms"]
    print(format_table(columns, [row(name, report) for name, report in arms.items()]))
    print(f"meanwhile {picked.answered} of {picked.requests} scenes were answered with grasps")
    against = {name: paired(arms[LOCAL], arms[name]) for name in (WIRE, REAL_TIME)}
    for name, pairs in against.items():
        print(f"{name} against {LOCAL}: {pairs}")
    write_json(
        options.json_file,
        {
            "machine": describe_machine(),
            "space_id": bundle.manifest.space_id,
            "served": served,
            "task": UNSEEN,
            "arms": arms,
            "against_in_process": against,
            "picking": picked,
            "counters": status.counters,
        },
    )


if __name__ == "__main__":
    main()
