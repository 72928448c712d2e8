"""What a run logs: `metrics.jsonl`, and the same figures as TensorBoard events.

Both survive resumption: lines of steps that are done again are dropped, and a new event file opens
with the mark by which TensorBoard forgets such steps of earlier files.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from limpet.contracts.whole_files import write_whole
from limpet.training.ranks import leads
from limpet.training.run import EVENTS, METRICS, TENSORBOARD

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
    """Opens an event file for TensorBoard, whose records are in the file once `write` returns.

    tensorboardX's own writers either queue records for a thread, where a kill loses them, or wait
    for the disk at each; so only its messages and its checksum are used here.
    """
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.record_writer import masked_crc32c
    except ModuleNotFoundError:
        log.warning("no TensorBoard events without tensorboardX: pip install 'limpet[training]'")
        yield _discard
        return

    def checked(content: bytes) -> bytes:
        return content + struct.pack("<I", masked_crc32c(content))

    folder.mkdir(exist_ok=True)
    began = f"{time.time():.0f}.{socket.gethostname()}.from-step-{step:09d}"
    with (folder / EVENTS.replace("*", began)).open("wb") as file:

        def append(**fields: object) -> None:
            content = Event(wall_time=time.time(), **fields).SerializeToString()
            file.write(checked(struct.pack("<Q", len(content))) + checked(content))
            file.flush()

        def write(done: int, figures: Mapping[str, float]) -> None:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
            append(step=done, summary=Summary(value=values))

        append(file_version="brain.Event:2")
        append(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        yield write


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
