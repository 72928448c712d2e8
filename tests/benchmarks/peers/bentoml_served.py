"""BentoML as a peer: raw bytes in, raw bytes out, through its HTTP server and adaptive batching."""

# BentoML reads these annotations, and its own `list` or `bytes` would be JSON or could not batch.

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, PlainSerializer, WithJsonSchema

# Read when BentoML is imported: it keeps its files in its environment, and reports to nobody.
os.environ["BENTOML_HOME"] = str(Path(sys.prefix) / "bentoml")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import bentoml
from bentoml.validators import ContentType

from tests.benchmarks.peers.http_link import HttpLink
from tests.benchmarks.peers.model import Array, open_model
from tests.benchmarks.peers.ports import free_ports


class Arguments(BaseModel):
    """What `bentoml serve --arg` is told."""

    model: str = ""


def _rows(body: Any) -> Any:
    return np.frombuffer(body, np.float32)[np.newaxis] if isinstance(body, bytes) else body


def _bytes(rows: Array) -> bytes:
    return rows.tobytes()


# With the schema of a binary string BentoML hands the body over as it is, and an array batches.
SCHEMA = WithJsonSchema({"type": "string", "format": "binary"})
TYPE = ContentType("application/octet-stream")
Rows = Annotated[np.ndarray, BeforeValidator(_rows), SCHEMA, TYPE]
RowsAsBytes = Annotated[np.ndarray, PlainSerializer(_bytes, return_type=bytes), SCHEMA, TYPE]
Body = Annotated[bytes, TYPE]
arguments = bentoml.use_arguments(Arguments)


@bentoml.service(
    workers=1,
    threads=1,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Served:
    """The model."""

    def __init__(self) -> None:
        self.run = open_model(arguments.model)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=1000)
    def predict(self, x: Rows, /) -> RowsAsBytes:
        """(batch, n) of one or more requests."""
        return self.run(x)

    @bentoml.api
    async def predict_one(self, x: Body, /) -> Body:
        """Without batching, and in the event loop, which spares a change of threads."""
        return self.run(_rows(x)).tobytes()


def serve(model: str, **settings: Any) -> None:
    """Becomes `bentoml serve`; prints its endpoint."""
    (port,) = free_ports(1)
    path = "predict" if settings["batching"] else "predict_one"
    print(f"ready http://127.0.0.1:{port}/{path}", flush=True)
    own = [sys.executable, "-m", "bentoml", "serve", f"{__name__}:Served"]
    own += ["--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", "60"]
    own += ["--arg", f"model={model}"]
    os.execv(sys.executable, own)


def link(endpoint: str, row: str) -> HttpLink:
    """A connection to it."""
    return HttpLink(endpoint)
