"""One thing that was looked at."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "absent", "warning", "failed"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        group: `machine`, `jetson` (on one), `dependencies`, `extras`, `engines`, `sockets` or
            `state`.
        name: What.
        status: `absent` is optional and not here; `warning` works, with a drawback; `failed`
            keeps a robot from running.
        found: What there is.
        mend: The command, or what to do; empty where nothing needs to be done.
    """

    group: str
    name: str
    status: Status
    found: str
    mend: str = ""
