"""The golden bytes of the wire, `wire_golden.json`, and the one way to add to them.

An entry is a message as a reader of another language would want it for a test:

    name      what it shows
    header    the msgpack map, keys in the order in which limpet writes them
    tensors   flat values of each tensor, in the order of `header.tensors`; "nan" and "inf" are text
    frames    the bytes in hexadecimal: header, then one frame a tensor (no topic frame)

To add one, write `name`, `header` and `tensors` at the end of the file and leave `frames` out, then

    python -m tests.contracts.wire_golden

fills `frames` in. It never changes bytes that are there: they change with the protocol's version
only. Check the new bytes against `WIRE.md` by eye before you commit them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from limpet.contracts import messages
from limpet.contracts.message_base import Message
from limpet.contracts.messages import Published, Reply, Request
from limpet.contracts.tensors import Array
from limpet.contracts.wire import encode

FILE = Path(__file__).with_suffix(".json")
TYPES = {type_.__struct_config__.tag: type_ for type_ in messages.MESSAGES}

Entry = dict[str, Any]


def entries() -> list[Entry]:
    """All entries of the file."""
    found: list[Entry] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def message_of(entry: Entry) -> Message:
    """The message that an entry describes."""
    message = msgspec.convert(entry["header"], Request | Reply | Published)
    assert isinstance(message, Message)
    return message


def tensors_of(entry: Entry) -> dict[str, Array]:
    """The tensors that an entry describes."""
    headers = entry["header"].get("tensors", [])
    return {
        header["name"]: np.array([float(v) if isinstance(v, str) else v for v in values])
        .astype(header["dtype"])
        .reshape(header["shape"])
        for header, values in zip(headers, entry["tensors"], strict=True)
    }


def frames_of(entry: Entry) -> list[str]:
    """The bytes that limpet writes for an entry, in hexadecimal."""
    return [bytes(frame).hex() for frame in encode(message_of(entry), tensors_of(entry))]


def main() -> None:
    """Fills in the frames of entries that have none yet."""
    found = entries()
    for entry in found:
        if "frames" not in entry:
            entry["frames"] = frames_of(entry)
            sys.stdout.write(f"added {entry['name']}\n")
    lines = ",\n".join(_pretty(entry) for entry in found)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _pretty(entry: Entry) -> str:
    parts = ",\n".join(
        f"    {json.dumps(key)}: {json.dumps(entry[key], allow_nan=False)}"
        for key in ("name", "header", "tensors", "frames")
    )
    return f"  {{\n{parts}\n  }}"


if __name__ == "__main__":
    main()
