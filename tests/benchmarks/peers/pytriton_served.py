"""nvidia-pytriton as a peer, over gRPC and over HTTP with binary tensors.

Its clients are generous: a bare call of Triton's own protocol, which on a shared machine answered
1,800 requests a second of 16 clients where `tritonclient` answered 1,300, and KServe's HTTP with
binary data over a plain connection, 10 % quicker than `ModelClient` and `tritonclient`.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2 as protocol

from tests.benchmarks.peers.http_link import HttpLink, number_in
from tests.benchmarks.peers.links import Buffer, asking
from tests.benchmarks.peers.model import Array, open_model
from tests.benchmarks.peers.ports import free_ports

NAME = "served"
CALL = "/inference.GRPCInferenceService/ModelInfer"
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
JSON_LENGTH = b"inference-header-content-length"


def serve(model: str, **settings: Any) -> None:
    """Serves until it is told to stop; prints the endpoints of gRPC and HTTP."""
    run = open_model(model)

    @batch
    def infer(x: Array) -> list[Array]:
        return [run(x)]

    grpc_port, http_port = free_ports(2)
    config = TritonConfig(
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        http_address="127.0.0.1",
        http_port=http_port,
        allow_metrics=False,
    )
    batching = ModelConfig(
        max_batch_size=settings["max_batch_size"],
        batcher=DynamicBatcher(
            max_queue_delay_microseconds=settings["max_queue_delay_microseconds"]
        ),
    )
    with Triton(config=config, workspace=Path(model).parent / "workspace") as triton:
        x, y = (Tensor(name=name, dtype=np.float32, shape=(-1,)) for name in "xy")
        triton.bind(NAME, infer, [x], [y], config=batching)
        print(f"ready 127.0.0.1:{grpc_port} http://127.0.0.1:{http_port}", flush=True)
        triton.serve()


class GrpcLink:
    """A channel whose answers come to a thread of gRPC's, which tells of them."""

    def __init__(self, endpoint: str) -> None:
        # Otherwise all channels to one server share one connection.
        options = [*NO_LIMIT, ("grpc.use_local_subchannel_pool", 1)]
        self._call = grpc.insecure_channel(endpoint, options=options).unary_unary(
            CALL,
            request_serializer=protocol.ModelInferRequest.SerializeToString,
            response_deserializer=protocol.ModelInferResponse.FromString,
        )
        self.waited_for = os.eventfd(0)
        self._answers: deque[Any] = deque()

    def _request(self, x: Array) -> Any:
        request = protocol.ModelInferRequest(model_name=NAME)
        request.inputs.add(name="x", datatype="FP32", shape=x.shape)
        request.outputs.add(name="y")
        request.raw_input_contents.append(x.tobytes())
        return request

    def ask(self, x: Array) -> Array:
        """Sends a request and waits for its answer, without another thread."""
        answer = self._call(self._request(x), timeout=30)
        return np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(x.shape)

    def send(self, x: Array) -> None:
        """See `Link`."""
        self._call.future(self._request(x), timeout=30).add_done_callback(self._answered)

    def _answered(self, future: Any) -> None:
        self._answers.append(future)
        os.eventfd_write(self.waited_for, 1)

    def receive(self) -> Buffer:
        """See `Link`."""
        os.eventfd_read(self.waited_for)
        answer: bytes = self._answers.popleft().result().raw_output_contents[0]
        return answer


class BinaryTensorLink(HttpLink):
    """HTTP with the tensor's bytes after a little JSON, there and back."""

    def before(self, x: Array) -> tuple[str, bytes]:
        """See `HttpLink`."""
        size, shape = {"binary_data_size": x.nbytes}, list(x.shape)
        inputs = [{"name": "x", "shape": shape, "datatype": "FP32", "parameters": size}]
        outputs = [{"name": "y", "parameters": {"binary_data": True}}]
        text = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        return f"Inference-Header-Content-Length: {len(text)}\r\n", text

    def body_of(self, head: bytes) -> int:
        """See `HttpLink`."""
        return number_in(head, JSON_LENGTH)


def link(endpoint: str, row: str) -> GrpcLink | BinaryTensorLink:
    """A connection to it."""
    if endpoint.startswith("http"):
        return BinaryTensorLink(f"{endpoint}/v2/models/{NAME}/infer")
    return GrpcLink(endpoint)


def connect(endpoint: str, row: str) -> Callable[[Array], Array]:
    """A function that sends a request and waits for its answer."""
    connection = link(endpoint, row)
    return connection.ask if isinstance(connection, GrpcLink) else asking(connection)
