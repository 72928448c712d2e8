"""The server's sockets against peers that misbehave."""

from __future__ import annotations

import subprocess
import sys

FLOOD_AND_LEAVE = """
import select
import zmq
from limpet.runtime.io_loop import IoLoop
from limpet.runtime.metrics import Metrics

handled = []
loop = IoLoop(
    ["tcp://127.0.0.1:0"], ["tcp://127.0.0.1:0"], 1 << 20, Metrics(),
    lambda peer, frames, respond: handled.append(peer),
)
with zmq.Context() as context:
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.LINGER, 0)
    client.setsockopt(zmq.SNDHWM, 0)
    client.connect(loop.listening[0])
    for _ in range(5000):
        client.send(bytes(4000))
    select.select([], [], [], 0.5)  # the server is busy meanwhile: it reads nothing
    client.close()
select.select([], [], [], 2.3)
while loop.read_requests(64):
    pass
print(len(handled))
loop.abandon()
"""


def test_a_client_that_floods_a_busy_server_and_leaves_does_not_end_it() -> None:
    """With ZMTP heartbeats on the server's side, libzmq aborted within one of them."""
    done = subprocess.run(
        [sys.executable, "-c", FLOOD_AND_LEAVE], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0, "what had come before it left is still read"
