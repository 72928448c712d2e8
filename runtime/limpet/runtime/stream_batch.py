"""Messages of several streams of one model, scored and made durable together.

Streams share calls of the engine and commits of the log, and nothing else: what fails for one of
them fails for it alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from limpet.contracts.errors import AlertLogError, RejectedError
from limpet.contracts.scoring import RowScores, score_together
from limpet.contracts.stream_messages import Samples
from limpet.contracts.tensors import Array
from limpet.runtime.alert_log import AlertLog
from limpet.runtime.stream import Answer, Pending, Stream
from limpet.runtime.stream_alerts import Draft

_Drafts = dict[int, tuple[RowScores, Draft]]
_Errors = dict[int, AlertLogError]


def push_together(
    batch: Sequence[tuple[Stream, Samples, Array]], log: AlertLog
) -> list[Answer | BaseException]:
    """Scores rows and makes their alerts durable.

    Args:
        batch: One message each of different streams of one model: header, and float32 or float64
            (rows, channels as announced).
        log: Takes the alerts.

    Returns:
        For each message its acknowledgement, or why there is none: a `RejectedError` where the rows
        do not fit what was announced, which leaves the stream as it is; else nothing of these rows
        is acknowledged, and the stream warms up anew.
    """
    found: dict[int, Answer | BaseException] = {}
    pending: dict[int, Pending] = {}
    for place, (stream, request, values) in enumerate(batch):
        try:
            begun = stream.begin(request, values)
        except RejectedError as error:
            found[place] = error
            continue
        if isinstance(begun, Pending):
            pending[place] = begun
        else:
            found[place] = begun
    drafts: _Drafts = {}
    scored = score_together(
        [each.stream.scorer for each in pending.values()],
        [each.rows for each in pending.values()],
    )
    for (place, each), rows in zip(pending.items(), scored, strict=True):
        try:
            if isinstance(rows, BaseException):
                raise rows
            drafts[place] = rows, each.stream.draft(each, rows)
        except BaseException as error:  # noqa: BLE001 (the caller says and logs it)
            found[place] = error
    found |= _append(drafts, log)
    for place, each in pending.items():
        if place in found:
            each.stream.fail()
        else:
            found[place] = each.stream.finish(each, *drafts[place])
    return [found[place] for place in range(len(batch))]


def _append(drafts: _Drafts, log: AlertLog) -> _Errors:
    """Commits all alerts at once, or, where that fails, those of each stream by themselves."""
    drafted = {place: draft for place, (_, draft) in drafts.items() if draft.alerts}
    try:
        log.append(
            [alert for draft in drafted.values() for alert in draft.alerts],
            [each for draft in drafted.values() for each in draft.fingerprints],
        )
    except AlertLogError as error:
        if len(drafted) == 1:
            return dict.fromkeys(drafted, error)
        failed: _Errors = {}
        for place in drafted:
            failed |= _append({place: drafts[place]}, log)
        return failed
    return {}
