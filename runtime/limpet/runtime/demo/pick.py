"""The demo's picking robot: asks a served model, again and again, what to grasp.

    python -m limpet.runtime.demo.pick ENDPOINT MODEL BUNDLE REPORT.json ROWS.npy

What it sees are the clouds in the bundle's golden data, a scene that the encoder was not trained on
where its data had one to spare. It prints `ready` after the first answer and goes on until SIGTERM;
then it writes its report and the rows of the last answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from limpet.contracts.bundle import read_bundle
from limpet.contracts.errors import DataError, RequestError
from limpet.contracts.grasps import COLUMNS
from limpet.runtime.demo.robot import Stopped
from limpet.runtime.picking_robot import FoundGrasps, PickingRobot

EVERY_S = 1.0
"""A scene a second: an arm takes longer to lift what it was told to."""
TIMEOUT_S = 20.0


class PickReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the picking robot met.

    Attributes:
        model: Name of the served model.
        requests: Scenes asked about.
        answered: Scenes answered, by grasps or by the reason why there is none.
        failed: Scenes that got no answer.
        views: Views of the scene.
        rows: Grasps of the last answer.
        hypotheses: Grasps that were looked at for it.
        free: How many of them fit around what was seen.
        nothing: Why there was none in the last answer; empty where there was one.
        best_score: Of its best grasp; None where there is none.
        p50_ms: Median time from asking to having poses.
        p99_ms: 99th percentile.
    """

    model: str
    requests: int
    answered: int
    failed: int
    views: int
    rows: int
    hypotheses: int
    free: int
    nothing: str
    best_score: float | None
    p50_ms: float | None
    p99_ms: float | None


def main(arguments: list[str] | None = None) -> None:
    """Runs the node."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("endpoint", help="the server's")
    parser.add_argument("model", help="name of the served model")
    parser.add_argument("bundle", type=Path, help="whose golden clouds are seen")
    parser.add_argument("report", type=Path, help="JSON to write")
    parser.add_argument("rows", type=Path, help="npy to write")
    options = parser.parse_args(arguments)
    stopped = Stopped()
    clouds = read_bundle(options.bundle).golden().clouds
    if clouds is None:
        raise DataError(f"{options.bundle} has no golden clouds")
    with PickingRobot(options.endpoint) as robot:
        report, rows = ask_steadily(robot, options.model, list(clouds), stopped)
    options.report.write_bytes(msgspec.json.encode(report))
    np.save(options.rows, rows, allow_pickle=False)


def ask_steadily(
    robot: PickingRobot, model: str, clouds: list[np.ndarray], stopped: Stopped
) -> tuple[PickReport, np.ndarray]:
    """Asks about a scene until told to stop.

    Args:
        robot: Connected.
        model: Name of the served model.
        clouds: Points of one or two views in one frame. (n, 3) each
        stopped: Says when.

    Returns:
        The report, and the last answer's rows. (g, 17)
    """
    latencies_s: list[float] = []
    requests = failed = 0
    found: FoundGrasps | None = None
    # The golden clouds lie in one frame already.
    second, pose = (None, None) if len(clouds) == 1 else (clouds[1], np.eye(4))
    while not stopped.is_set:
        began_s = time.monotonic()
        requests += 1
        try:
            found = robot.grasp(
                model, clouds[0], depth_aux=second, pose_aux_in_ref=pose, timeout_s=TIMEOUT_S
            )
            latencies_s.append(time.monotonic() - began_s)
        except RequestError as error:
            failed += 1
            sys.stderr.write(f"{error}\n")
        if requests == 1:
            sys.stdout.write("ready\n")
            sys.stdout.flush()
        _sleep(stopped, began_s + EVERY_S)
    latency_ms = 1e3 * np.array(latencies_s)
    rows = np.zeros((0, COLUMNS), np.float32) if found is None else found.rows
    return (
        PickReport(
            model=model,
            requests=requests,
            answered=len(latencies_s),
            failed=failed,
            views=found.views if found else 0,
            rows=len(rows),
            hypotheses=found.hypotheses if found else 0,
            free=found.free if found else 0,
            nothing=found.nothing if found else "",
            best_score=float(rows[0, 0]) if len(rows) else None,
            p50_ms=float(np.percentile(latency_ms, 50)) if latencies_s else None,
            p99_ms=float(np.percentile(latency_ms, 99)) if latencies_s else None,
        ),
        rows,
    )


def _sleep(stopped: Stopped, until_s: float) -> None:
    while not stopped.is_set and time.monotonic() < until_s:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
