"""Who is measured: one table of peers, their versions and licences, and how they are set up."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One server.

    Attributes:
        module: Of this package: `serve(model, **settings)` and `link(endpoint, row)`.
        rows: What is measured of it, one for each endpoint that it prints; the last endpoint
            stands for the rows after it.
        packages: What its environment has, with versions, beside ONNX Runtime in limpet's version;
            none: limpet's own environment.
        licence: Of the first package.
        settings: For `serve`.
        why: What was set and why, for readers.
        by_us: Written by us after a public description.
        libpython: Whether its processes look for the interpreter's own libpython.
    """

    module: str
    rows: tuple[str, ...]
    packages: dict[str, str] = field(default_factory=dict)
    licence: str = "MIT"
    settings: dict[str, Any] = field(default_factory=dict)
    why: str
    by_us: bool = False
    libpython: bool = False


LIMPET, LANE = "limpet tcp", "limpet lane"
SHAPES = ("GR00T-shaped", "openpi-shaped")
FRAMEWORKS = {
    "pytriton": ("pytriton gRPC", "pytriton HTTP"),
    "LitServe": ("LitServe", "LitServe, no batching"),
    "BentoML": ("BentoML", "BentoML, no batching"),
}
"""Rows of each framework that the targets name: in each figure its best one counts."""
FRAMEWORK_ROWS = [row for rows in FRAMEWORKS.values() for row in rows]
ECHO, IN_PROCESS = "raw ZeroMQ echo", "in process"

NUMPY = "2.4.6"
ZMQ = "27.3.0"

LITSERVE = Peer(
    module="litserve_served",
    rows=FRAMEWORKS["LitServe"][:1],
    packages={
        "litserve": "0.2.19", "fastapi": "0.165.0", "starlette": "1.10.0", "uvicorn": "0.54.0",
        "uvloop": "0.23.0", "httptools": "0.9.0", "pyzmq": ZMQ, "numpy": NUMPY,
    },
    licence="Apache-2.0",
    settings={"max_batch_size": 16, "batch_timeout": 0.001, "num_api_servers": 2},
    why="Batches of up to 16 within 1 ms: without that time its worker asks the queue without "
    "pause, which costs a core. One worker with one session, two API servers, which answered "
    "more than one; its ZeroMQ queue (`fast_queue`) on. Bodies are raw bytes, "
    "through a FastAPI dependency and a Response; uvloop and httptools; logs of access off. "
    "Client: a plain HTTP connection.",
)  # fmt: skip
BENTOML = Peer(
    module="bentoml_served",
    rows=FRAMEWORKS["BentoML"][:1],
    packages={
        "bentoml": "1.4.40", "starlette": "1.10.0", "uvicorn": "0.54.0",
        "uvloop": "0.23.0", "httptools": "0.9.0", "numpy": NUMPY,
    },
    licence="Apache-2.0",
    settings={"batching": True},
    why="Adaptive batching of up to 16; one worker with one session. Bodies are raw bytes, by "
    "annotations that take a binary string for an array, so that its HTTP server and batching stay "
    "in the path; uvloop and httptools, which it does not ask for; logs of access and metrics off. "
    "Client: a plain HTTP connection.",
)  # fmt: skip

PEERS = (
    Peer(
        module="limpet_served",
        rows=(LIMPET, LANE),
        licence="as this repository",
        why="`limpet serve` with its defaults: one session, one thread, requests that wait run "
        "together where its start measured that this pays. One client is RobotClient, over tcp "
        "and over the same-host lane, which it takes by itself; many are 16 DEALER sockets, or 16 "
        "lanes.",
    ),
    Peer(
        module="pytriton_served",
        rows=FRAMEWORKS["pytriton"],
        # The embedded server's stub is of before NumPy 2: with it every answer is an empty tensor.
        packages={
            "nvidia-pytriton": "0.5.7", "tritonclient": "2.73.0", "grpcio": "1.85.3",
            "protobuf": "6.33.6", "pyzmq": ZMQ, "numpy": "1.26.4",
        },
        licence="Apache-2.0",
        settings={"max_batch_size": 16, "max_queue_delay_microseconds": 0},
        why="Dynamic batching up to 16 without delay, its default; "
        "metrics off; gRPC by a bare call of its protocol and HTTP with binary tensors by a plain "
        "connection, both quicker than tritonclient and ModelClient. NumPy 1.26, as its stub "
        "answers empty tensors under NumPy 2.",
        libpython=True,
    ),
    LITSERVE,
    replace(
        LITSERVE,
        rows=FRAMEWORKS["LitServe"][1:],
        settings={**LITSERVE.settings, "max_batch_size": 1, "batch_timeout": 0.0},
        why="The same without batches: its worker waits in the queue, which suits one client.",
    ),
    BENTOML,
    replace(
        BENTOML,
        rows=FRAMEWORKS["BentoML"][1:],
        settings={"batching": False},
        why="The same without batching and in the event loop, which suits one client: no "
        "dispatcher that waits for more, no change of threads.",
    ),
    Peer(
        module="groot_shaped",
        rows=SHAPES[:1],
        packages={"pyzmq": ZMQ, "msgpack": "1.2.4", "numpy": NUMPY},
        licence="BSD-3-Clause",
        why="REQ and REP, msgpack with arrays as .npy bytes, one request after another; it has no "
        "batching. Licence: of pyzmq.",
        by_us=True,
    ),
    Peer(
        module="openpi_shaped",
        rows=SHAPES[1:],
        packages={"websockets": "17.4", "msgpack": "1.2.4", "pyzmq": ZMQ, "numpy": NUMPY},
        licence="BSD-3-Clause",
        why="A websocket without compression, msgpack with arrays as raw bytes, inference in the "
        "event loop; it has no batching. Client: the same protocol without openpi's reading "
        "thread. pyzmq only polls. Licence: of websockets.",
        by_us=True,
    ),
    Peer(
        module="floors",
        rows=(ECHO,),
        licence="BSD-3-Clause",
        why="A ROUTER that sends back what came, the same frames and bytes as limpet; it computes "
        "nothing. Licence: of pyzmq.",
        by_us=True,
    ),
)  # fmt: skip
