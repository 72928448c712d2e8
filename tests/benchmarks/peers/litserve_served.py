"""LitServe as a peer: raw bytes in, raw bytes out, through its queues and its loop of batches."""

# LitServe gives these annotations to FastAPI as they are, so that they have to be types, not text.

from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Depends, Request, Response

from tests.benchmarks.peers.http_link import HttpLink
from tests.benchmarks.peers.model import Array, open_model
from tests.benchmarks.peers.ports import free_ports


async def body(request: Request) -> bytes:
    """The request's bytes, which LitServe itself would read as JSON."""
    return await request.body()


class Served(litserve.LitAPI):
    """The model."""

    model_path = Path()

    def setup(self, device: str) -> None:
        """In the worker's process."""
        self.run = open_model(str(self.model_path))

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> Array:
        """(n,)"""
        return np.frombuffer(request, np.float32)

    def predict(self, x: Array) -> Array:
        """(n,) or, of several requests, (batch, n)"""
        return self.run(np.atleast_2d(x))

    def encode_response(self, output: Array) -> Response:
        """The answer's bytes."""
        return Response(output.tobytes(), media_type="application/octet-stream")


def serve(model: str, **settings: Any) -> None:
    """Serves until it is killed; prints its endpoint."""
    (port,) = free_ports(1)
    api = Served(max_batch_size=settings["max_batch_size"], batch_timeout=settings["batch_timeout"])
    api.model_path = Path(model)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True, timeout=False
    )
    print(f"ready http://127.0.0.1:{port}/predict", flush=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=settings["num_api_servers"],
        log_level="warning",
        access_log=False,
        timeout_keep_alive=60,
        generate_client_file=False,
    )


def link(endpoint: str, row: str) -> HttpLink:
    """A connection to it."""
    return HttpLink(endpoint)
