"""What a run logs: `metrics.jsonl`, and the same figures as TensorBoard events.

Both survive resumption: lines of steps that are done again are dropped, and a new event file opens
with the mark by which TensorBoard forgets such steps of earlier files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from limpet.training.ranks import leads
from limpet.training.run import METRICS, TENSORBOARD, write_whole

Write = Callable[[int, Mapping[str, float]], None]
"""Takes the number of steps that are done and figures by name."""

log = logging.getLogger(__name__)


@contextlib.contextmanager
def metrics_log(folder: Path, step: int) -> Iterator[Write]:
    """Opens the logs of a run to go on after a step; on ranks other than 0 nothing is written.

    Each line has `step`, the figures (null where not finite) and `seconds` of training so far,
    those of an interrupted part included.

    Args:
        folder: The RUN.
        step: Steps that are done.
    """
    if not leads():
        yield _discard
        return
    began = time.monotonic() - _forget_after(folder / METRICS, step)
    with (
        (folder / METRICS).open("a", encoding="utf-8") as lines,
        _events(folder / TENSORBOARD, step) as write_events,
    ):

        def write(done: int, figures: Mapping[str, float]) -> None:
            finite = {k: v if math.isfinite(v) else None for k, v in figures.items()}
            line = {"step": done, **finite, "seconds": round(time.monotonic() - began, 3)}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            write_events(done, figures)

        yield write


@contextlib.contextmanager
def _events(folder: Path, step: int) -> Iterator[Write]:
    """TensorBoard's event file, each event flushed; tensorboardX's `SummaryWriter` would queue them
    for a thread of its own, where a kill loses them.
    """
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
    except ModuleNotFoundError:
        log.warning("no TensorBoard events without tensorboardX: pip install 'limpet[training]'")
        yield _discard
        return
    folder.mkdir(exist_ok=True)
    writer = EventsWriter(str(folder / "events"), f".from-step-{step:09d}")
    restart = SessionLog(status=SessionLog.START)
    writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=restart))

    def write(done: int, figures: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        event = Event(wall_time=time.time(), step=done, summary=Summary(value=values))
        writer.write_event(event)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()


def _discard(done: int, figures: Mapping[str, float]) -> None:
    pass


def _forget_after(metrics: Path, step: int) -> float:
    """Drops lines of steps that will be done again, and half a line of a kill.

    Returns:
        Seconds of training that the kept lines tell of.
    """
    if not metrics.exists():
        return 0.0
    kept, seconds = [], 0.0
    for line in metrics.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            done, reached = int(entry["step"]), float(entry["seconds"])
        except (ValueError, KeyError, TypeError):
            break
        if done > step:
            break
        kept.append(line)
        seconds = reached
    write_whole(metrics, "".join(f"{line}\n" for line in kept).encode())
    return seconds
