"""The demo's mobile robot: a simulated one that drives closed loop through a served policy.

    python -m limpet.runtime.demo.drive ENDPOINT MODEL REPORT.json TRIPS.npz

It prints `ready` when its scenes are there and the server answers, and drives one episode after
another until SIGTERM, or `--episodes`; then it writes its report and the ways that it drove.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import msgspec

from limpet.contracts.errors import MissingExtraError
from limpet.runtime.demo.driving import Drive, load_simulator
from limpet.runtime.demo.robot import Stopped
from limpet.runtime.demo.trips import write_trips
from limpet.runtime.mobile_robot import FORGET_S, MobileRobot

SIMULATOR = "limpet.training.navigation.simulator:demo_simulator"
MAX_AGE_S = 0.15
"""Three ticks."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the node."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("endpoint", help="the server's")
    parser.add_argument("model", help="name of the served policy")
    parser.add_argument("report", type=Path, help="JSON to write")
    parser.add_argument("trips", type=Path, help="npz to write")
    parser.add_argument("--episodes", type=int, help="how many; default: until SIGTERM")
    parser.add_argument("--speed", choices=("1", "max"), default="1", help="real time, or not")
    parser.add_argument("--simulator", default=SIMULATOR, metavar="MODULE:NAME")
    options = parser.parse_args(arguments)
    stopped = Stopped()
    try:
        simulator = load_simulator(options.simulator)
    except MissingExtraError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    rate_hz = simulator.control_hz if options.speed == "1" else None
    frame_s = None if rate_hz else 1.0 / simulator.control_hz
    with MobileRobot(
        options.endpoint, options.model, max_age_s=MAX_AGE_S, frame_s=frame_s
    ) as robot:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        drive = Drive(simulator, robot, rate_hz, lambda: stopped.is_set)
        numbers = itertools.count() if options.episodes is None else range(options.episodes)
        drive.run(numbers)
        robot.receive(FORGET_S)  # a server that finds nobody to answer counts a lost reply
        report = drive.report(options.model, MAX_AGE_S)
    options.report.write_bytes(msgspec.json.encode(report))
    write_trips(options.trips, drive.trips)


if __name__ == "__main__":
    main()
