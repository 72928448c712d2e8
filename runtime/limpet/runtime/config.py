"""The configuration of a server: one TOML file, typed, where unknown keys fail."""

from __future__ import annotations

import difflib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec

from limpet.contracts.correlation import GroupingConfig
from limpet.contracts.detector import DetectorConfig
from limpet.contracts.errors import ConfigError

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
# TOML has inf and nan; neither may be a duration.
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[models]]` table."""

    bundle: str
    """Folder of the bundle, relative to the configuration file."""
    name: str = ""
    """Name that nodes ask for; empty takes the manifest's."""
    engine: Literal["auto", "onnxruntime", "tensorrt", "tensorrt-rtx"] = "auto"
    """Inference engine; one that is named is never replaced silently."""
    threads: PositiveInt = 1
    """CPU threads that one inference may use."""
    stream_threads: PositiveInt = 2
    """Threads that score sensor streams: one computes while the other prepares."""
    queue: PositiveInt = 256
    """Requests and streams that may wait; one more is rejected as overloaded. A stream takes one
    place, however many of its messages wait."""
    max_batch: PositiveInt = 256
    """Largest size of the axis `batch` in one request."""
    together: bool = True
    """Whether requests that wait may be run in one call, where the start measures that it pays: as
    many as make an item hardly dearer than the best batch does and, with `deadline_ms`, leave one
    that comes meanwhile the time to be run. An output may then differ in its last digits by what it
    was run with."""
    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Requests per second that nodes will send, all together. Where it is stated, the server checks
    at its start that this machine can serve them."""
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    """Time from capture to answer that those requests need; none: until the next one."""


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[streams]]` table; the first one whose `match` fits a stream's name holds."""

    match: str = "*"
    """Shell pattern on the stream's name."""
    model: str = ""
    """Model that scores it; empty takes the only one that scores streams."""
    silent_after_s: Seconds = 10.0
    """Seconds without rows after which heartbeats call the stream silent."""
    detector: DetectorConfig = DetectorConfig()
    """From scores to incidents."""


class ServerSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `[server]` table."""

    name: str = "limpet"
    """Name in heartbeats and logs."""
    listen: tuple[str, ...] = ("tcp://127.0.0.1:7700",)
    """Endpoints for requests and streams (ROUTER); port 0 takes a free one."""
    publish: tuple[str, ...] = ("tcp://127.0.0.1:7701",)
    """Endpoints for alerts and heartbeats (XPUB)."""
    allow_network: bool = False
    """Whether endpoints beyond this host may be bound. Nothing is encrypted: only on a network
    that you trust whole."""
    state_dir: str = "state"
    """Folder of the alert log, relative to the configuration file."""
    heartbeat_s: Annotated[float, msgspec.Meta(ge=0.01, le=3600)] = 1.0
    """Seconds between heartbeats."""
    max_message_mb: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    """Largest frame that a node may send."""
    lane_mb: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 32
    """Shared memory in MiB for the requests of a client on this host, and as much for its replies;
    it is taken as it is used. 0: such clients use their sockets only."""
    max_streams: PositiveInt = 1024
    """Streams that may be open at a time."""
    when_overloaded: Literal["refuse", "warn"] = "refuse"
    """What to do at the start where the models' `rate_hz` and `deadline_ms` cannot be kept here."""
    drain_s: Seconds = 10.0
    """On SIGTERM, longest wait for requests that were accepted."""
    cores: tuple[Annotated[int, msgspec.Meta(ge=0, le=4095)], ...] = ()
    """Numbers of the cores that `limpet serve` may run on; empty: all."""
    realtime_priority: Annotated[int, msgspec.Meta(ge=1, le=99)] | None = None
    """Priority of the policy SCHED_FIFO for `limpet serve`; where that is not permitted it does not
    start. None: as every other process."""


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration file."""

    server: ServerSection = ServerSection()
    models: Annotated[list[ModelConfig], msgspec.Meta(min_length=1)]
    streams: tuple[StreamConfig, ...] = (StreamConfig(),)
    grouping: GroupingConfig = GroupingConfig()


def load_config(path: Path | str) -> ServerConfig:
    """Reads and checks a configuration file.

    Relative `bundle`, `state_dir` and `ipc://` paths are resolved against the file's folder.

    Raises:
        ConfigError: `path:line: what is wrong`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin files with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        config = msgspec.toml.decode(text, type=ServerConfig)
    except msgspec.ValidationError as error:
        raise _explain(path, text, str(error)) from error
    except msgspec.DecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = found[1] if found else text.rstrip("\n").count("\n") + 1  # "at end of document"
        raise ConfigError(f"{path}:{line}: not valid TOML: {error}") from error
    return _resolve(path, text, config)


def _resolve(path: Path, text: str, config: ServerConfig) -> ServerConfig:
    folder = path.absolute().parent
    server = config.server

    def endpoint(value: str, key: str) -> str:
        scheme, _, rest = value.partition("://")
        line = _line_of(text, f"$.server.{key}")
        if scheme == "ipc" and rest:
            return f"ipc://{folder / Path(rest).expanduser()}"
        try:
            port, host = urlsplit(value).port, urlsplit(value).hostname
        except ValueError:
            port = host = None
        if scheme != "tcp" or host is None or port is None:
            raise ConfigError(
                f"{path}:{line}: endpoint {value!r} is neither tcp://HOST:PORT nor ipc://PATH"
            )
        if ":" in host:
            raise ConfigError(f"{path}:{line}: endpoint {value!r} is IPv6, wanted an IPv4 address")
        if not server.allow_network and not _is_loopback(host):
            raise ConfigError(
                f"{path}:{line}: endpoint {value!r} is reachable from other hosts, unencrypted",
                "bind tcp://127.0.0.1:PORT, or set allow_network = true on a network you trust",
            )
        return value

    for key, endpoints in (("listen", server.listen), ("publish", server.publish)):
        if not endpoints:
            line = _line_of(text, f"$.server.{key}")
            raise ConfigError(f"{path}:{line}: no endpoint (at server.{key})")
    return msgspec.structs.replace(
        config,
        server=msgspec.structs.replace(
            server,
            listen=tuple(endpoint(value, "listen") for value in server.listen),
            publish=tuple(endpoint(value, "publish") for value in server.publish),
            state_dir=str(folder / Path(server.state_dir).expanduser()),
        ),
        models=[
            msgspec.structs.replace(m, bundle=str(folder / Path(m.bundle).expanduser()))
            for m in config.models
        ],
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name, and a name server says what it stands for
        return False


def _explain(path: Path, text: str, message: str) -> ConfigError:
    """Adds line and, for a misspelt key, the nearest known one to msgspec's message."""
    where = re.search(r"at `(.*)`$", message)
    location = where[1] if where else "$"
    what = message.removesuffix(f" - {where[0]}") if where else message
    unknown = re.search(r"unknown field `(.*)`", what)
    hint = ""
    if unknown:
        known = _section(location).__struct_fields__
        near = difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        location = f"{location}.{unknown[1]}"
    elif what.startswith("Invalid enum value"):
        section, _, key = location.rpartition(".")
        hint = f"one of: {', '.join(get_args(get_type_hints(_section(section))[key]))}"
    elif what == "Expected `array`, got `object`" and location in ("$.models", "$.streams"):
        hint = f"a table of which there may be several has two brackets: [[{location[2:]}]]"
    return ConfigError(
        f"{path}:{_line_of(text, location)}: {what} (at {location[2:] or 'top'})", hint
    )


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "": ServerConfig,
    "server": ServerSection,
    "models": ModelConfig,
    "streams": StreamConfig,
    "streams.detector": DetectorConfig,
    "grouping": GroupingConfig,
}


def _section(location: str) -> type[msgspec.Struct]:
    return _SECTIONS[re.sub(r"\[\d+\]", "", location).removeprefix("$").lstrip(".")]


_KEY = r"""(?:[\w.\-]|"[^"]*"|'[^']*')+"""
"""A key of TOML, bare, quoted or dotted."""


def _line_of(text: str, location: str) -> int:
    """Line of the key at `location` (`$.models[1].threads`), else of the table nearest to it.

    TOML parsers give no positions, so this looks for headers and keys at the start of a line;
    what an inline table holds has the line of that table's key.
    """
    text = re.sub(r"(\"{3}|'{3}).*?\1", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    counts: dict[str, int] = {}
    lines = {"$": 1}
    table = "$"
    for number, line in enumerate(text.split("\n"), start=1):
        if header := re.match(rf"\s*(\[\[?)\s*({_KEY})\s*\]", line):
            parent, _, leaf = re.sub(r"[\"'\s]", "", header[2]).rpartition(".")
            # A sub-table belongs to the newest entry of the array it names.
            above = f"$.{parent}" if parent else "$"
            above += f"[{counts[above] - 1}]" if above in counts else ""
            table = f"{above}.{leaf}"
            if header[1] == "[[":
                lines.setdefault(table, number)
                counts[table] = counts.get(table, 0) + 1
                table += f"[{counts[table] - 1}]"
            lines.setdefault(above, number)
            lines.setdefault(table, number)
        elif key := re.match(rf"\s*({_KEY})\s*=", line):
            where = table
            for part in re.sub(r"[\"'\s]", "", key[1]).split("."):
                where += f".{part}"
                lines.setdefault(where, number)
    while location not in lines:
        location = location[: max(location.rfind("."), location.rfind("["), 1)]
    return lines[location]
