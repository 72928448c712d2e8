"""One client never harms another, and whatever fails inside is answered."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
import zmq

from limpet.contracts import messages
from limpet.contracts.errors import FailedError, LimpetError, RequestTimeoutError
from limpet.contracts.messages import Failed, Rejected, Result
from limpet.contracts.stream_messages import Scores
from limpet.contracts.wire import decode_reply
from limpet.runtime.alert_feed import AlertFeed
from limpet.runtime.client import RobotClient
from limpet.runtime.run_cost import RunCost
from limpet.runtime.server import Server
from tests.runtime.clients import hear, x
from tests.runtime.questions import (
    MODEL,
    check_served,
    counter,
    never_reading_replies,
    tell,
)
from tests.runtime.serving import (
    PATIENCE_S,
    ObedientEngine,
    RawStream,
    obedient,
    until,
)


def port_of(endpoint: str) -> tuple[str, int]:
    return "127.0.0.1", int(endpoint.rpartition(":")[2])


# One client never harms another ------------------------------------------------------------------


def half_a_greeting(server: Server, stack: ExitStack) -> None:
    for length in (0, 1, 9, 10, 11, 40, 63):
        raw = stack.enter_context(socket.create_connection(port_of(server.listening[0])))
        raw.sendall((b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(64))[:length])


def no_zmq_at_all(server: Server, stack: ExitStack) -> None:
    for endpoint in (server.listening[0], server.publishing[0]):
        raw = stack.enter_context(socket.create_connection(port_of(endpoint)))
        raw.sendall(b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n" + os.urandom(4096))


def half_a_request(server: Server, stack: ExitStack) -> None:
    """Handshakes as a DEALER, then announces a megabyte and sends a tenth of it."""
    raw = stack.enter_context(socket.create_connection(port_of(server.listening[0])))
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(22, b"\0") + bytes(33))
    ready = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    raw.sendall(bytes([4, len(ready)]) + ready)
    raw.sendall(b"\x03" + struct.pack(">Q", 1 << 20) + bytes(100_000))


def a_message_without_end(server: Server, stack: ExitStack) -> None:
    """Parts and more parts, and never the last one."""
    dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
    stack.enter_context(dealer)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(server.listening[0])
    for _ in range(1000):
        dealer.send(bytes(100), zmq.SNDMORE)


def garbage(server: Server, stack: ExitStack) -> None:
    dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
    stack.enter_context(dealer)
    dealer.connect(server.listening[0])
    for frames in ([b""], [b"\xff" * 100], [os.urandom(100)] * 40, [b"\x81\xa1v\x01", b"", b""]):
        dealer.send_multipart(frames)
        assert dealer.poll(round(PATIENCE_S * 1000))
        reply, _ = decode_reply(dealer.recv_multipart())
        assert isinstance(reply, Rejected)
        assert reply.code == "malformed"


def a_frame_beyond_the_limit(server: Server, stack: ExitStack) -> None:
    """Ends the connection; ZeroMQ makes another, over which requests are served."""
    greedy = RobotClient(server.listening[0])
    stack.callback(greedy.close)
    with pytest.raises(RequestTimeoutError):
        greedy.infer("identity", {"x": np.zeros((1 << 21, 4), np.float32)}, timeout_s=0.3)
    check_served(greedy, times=1)


def an_oversized_subscription(server: Server, stack: ExitStack) -> None:
    subscriber = stack.enter_context(zmq.Context()).socket(zmq.SUB)
    stack.enter_context(subscriber)
    subscriber.setsockopt(zmq.LINGER, 0)
    subscriber.setsockopt(zmq.SUBSCRIBE, bytes(100_000))  # libzmq itself crashes at a million
    subscriber.connect(server.publishing[0])


def leaving_before_the_reply(server: Server, stack: ExitStack) -> None:
    engine = obedient(server, "identity")
    engine.gate.clear()
    for _ in range(5):
        hasty = RobotClient(server.listening[0])
        hasty.hello()
        with pytest.raises(RequestTimeoutError):
            hasty.infer("identity", x(99.0), timeout_s=0.05)
        hasty.close()
    engine.gate.set()
    until(lambda: counter(server, "dropped.reply_peer_gone"))


HARMS = [
    half_a_greeting,
    no_zmq_at_all,
    half_a_request,
    a_message_without_end,
    garbage,
    a_frame_beyond_the_limit,
    an_oversized_subscription,
    leaving_before_the_reply,
    never_reading_replies,
]


@pytest.mark.parametrize("harm", HARMS)
def test_another_clients_results_stay_right(
    server: Server, robot: RobotClient, harm: Callable[[Server, ExitStack], None]
) -> None:
    with RawStream(server.listening[0]) as pump, AlertFeed(server.listening[0]) as feed:
        pump.push(0, np.ones((20, 2)))
        with ExitStack() as stack:
            harm(server, stack)
            check_served(robot)
            reply, scores, _ = pump.push(20, np.full((2, 2), 9.0))
            assert isinstance(reply, Scores)
            assert scores.tolist() == [9.0, 9.0]
            opened = next(feed.events(timeout_s=PATIENCE_S))
            assert isinstance(opened, messages.Alert)
        check_served(robot)


def test_a_model_that_hangs_delays_no_other_model_and_no_question(
    server: Server, robot: RobotClient
) -> None:
    engine = obedient(server, MODEL)
    with RobotClient(server.listening[0]) as waiting, RawStream(server.listening[0]) as pump:
        engine.gate.clear()
        tell(waiting, model=MODEL)
        until(lambda: engine.runs == 1)
        pump.tell(pump.samples(0), {"values": np.ones((20, 2))})
        until(lambda: engine.runs == 2)  # in the other thread
        pump.tell(pump.opening())
        check_served(robot)
        assert robot.status().models[MODEL]["waiting"] == 1
        assert len(robot.hello().models) == 2
        robot.sync_clock()
        engine.gate.set()
        assert isinstance(hear(waiting), Result)
        assert isinstance(pump.hear()[0], Scores)


def test_many_clients_at_once_get_each_their_own_results(server: Server) -> None:
    wrong: list[Exception] = []

    def work(first: int) -> None:
        try:
            with RobotClient(server.listening[0]) as robot:
                for value in range(first, first + 50):
                    answer = robot.infer("identity", x(value), timeout_s=PATIENCE_S)
                    np.testing.assert_array_equal(answer.outputs["y"], x(value)["x"])
        except (LimpetError, AssertionError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=[1000 * i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert counter(server, "requests.Infer") == 400


# What fails inside -------------------------------------------------------------------------------


def raise_system_exit(engine: ObedientEngine) -> None:
    engine.failure = SystemExit(3)


def raise_memory_error(engine: ObedientEngine) -> None:
    engine.failure = MemoryError()


def give_no_outputs(engine: ObedientEngine) -> None:
    engine.replace = lambda outputs: dict.fromkeys(outputs)  # type: ignore[assignment, misc]


def give_what_no_frame_can_carry(engine: ObedientEngine) -> None:
    engine.replace = lambda outputs: {name: np.array([object()]) for name in outputs}


FAILURES = [
    raise_system_exit,
    raise_memory_error,
    give_no_outputs,
    give_what_no_frame_can_carry,
]


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("fail", FAILURES)
def test_whatever_an_engine_does_is_answered_and_the_next_request_served(
    server: Server, robot: RobotClient, fail: Callable[[ObedientEngine], None], inline: bool
) -> None:
    engine = obedient(server, "identity")
    server._models["identity"].cost = RunCost(0 if inline else 1e8)
    fail(engine)
    for _ in range(3):
        with pytest.raises(FailedError):
            robot.infer("identity", x(1.0), timeout_s=PATIENCE_S)
    engine.failure, engine.replace = None, lambda outputs: outputs
    check_served(robot, times=3)
    assert robot.status().counters["dropped.failed"] == 3


@pytest.mark.parametrize("fail", [raise_system_exit, raise_memory_error, give_no_outputs])
def test_whatever_an_engine_does_to_a_stream_is_answered_and_its_credits_come_back(
    server: Server, fail: Callable[[ObedientEngine], None]
) -> None:
    engine = obedient(server, MODEL)
    with RawStream(server.listening[0]) as pump:
        fail(engine)
        for _ in range(40):  # more than there are credits
            reply, _, _ = pump.push(0, np.ones((20, 2)))
            assert isinstance(reply, Failed)
        engine.failure, engine.replace = None, lambda outputs: outputs
        reply, _, _ = pump.push(0, np.ones((20, 2)))
        assert isinstance(reply, Scores)


def test_a_log_that_cannot_be_read_is_said_and_the_server_goes_on(
    server: Server, robot: RobotClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server._log._reader.close()
    with pytest.raises(FailedError, match=r"alerts\.db cannot be read: "):
        robot.request(
            messages.GetAlerts(id=robot.next_id(), since=0), messages.AlertPage, PATIENCE_S
        )
    check_served(robot, times=3)


def test_a_bug_in_a_handler_is_answered_and_logged_and_the_server_goes_on(
    server: Server, robot: RobotClient, caplog: pytest.LogCaptureFixture
) -> None:
    server._handlers[messages.Ping] = lambda *_: [][0]
    with pytest.raises(FailedError, match="internal error, see the log"):
        robot.sync_clock()
    assert "IndexError" in caplog.text
    check_served(robot, times=3)
