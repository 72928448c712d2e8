"""Same-host lanes: who may open one, and who lies."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limpet.contracts import messages
from limpet.contracts.lane import (
    GENERATION,
    MAX_PACKET_BYTES,
    Block,
    pack,
)
from limpet.contracts.messages import LaneOffer, Rejected, Result
from limpet.contracts.wire import encode
from limpet.runtime import lane_host
from limpet.runtime.client import RobotClient
from limpet.runtime.lane import open_lane
from limpet.runtime.lane_memory import SUPPORTED, place
from limpet.runtime.server import Server
from tests.runtime.lanes import (
    RawLane,
    ask,
    connect,
    counter,
    lanes_of,
    offer_of,
    request,
    take_lane,
    wide_serving,
)
from tests.runtime.serving import obedient, until

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with wide_serving(tmp_path) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        take_lane(connected)
        yield connected


def test_a_token_is_good_once_and_a_wrong_one_never(server: Server) -> None:
    with RobotClient(server.listening[0], lane=False) as connection:
        offer = offer_of(connection)
        first = open_lane(offer)
        assert first is not None
        assert open_lane(offer) is None
        wrong = LaneOffer(address=offer.address, token="00" * 16)
        assert open_lane(wrong) is None
        for token in (b"x" * 17, b"x"):
            with contextlib.closing(connect(offer)) as stranger:
                stranger.send(token)
                assert stranger.recv(10) == b""
        first.close()
    assert counter(server, "lane.refused") == 4


def test_a_token_does_not_last(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_host, "OFFER_S", 0.0)
    with RobotClient(server.listening[0], lane=False) as connection:
        assert open_lane(offer_of(connection)) is None


def test_strangers_who_say_nothing_keep_nobody_out(server: Server) -> None:
    with (
        contextlib.ExitStack() as stack,
        RobotClient(server.listening[0], lane=False) as connection,
    ):
        offer = offer_of(connection)
        for _ in range(lane_host.MAX_OFFERS + 5):
            stack.callback(connect(offer).close)
        lane = open_lane(offer_of(connection))
        assert lane is not None
        lane.close()


def test_more_lanes_than_there_may_be_are_refused_and_served_over_sockets(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_host, "MAX_LANES", 2)
    with contextlib.ExitStack() as stack:
        robots = [stack.enter_context(RobotClient(server.listening[0])) for _ in range(3)]
        for value, robot in enumerate(robots * 2):
            ask(robot, value)
        assert [robot._lane is not None for robot in robots] == [True, True, False]


AS_NOBODY = """
import os, sys
from limpet.contracts.messages import LaneOffer
from limpet.runtime.lane import open_lane
os.setgid(65534); os.setuid(65534)
opened = open_lane(LaneOffer(address=sys.argv[1], token=sys.argv[2])) is not None
try:
    os.open(sys.argv[3], os.O_RDWR)
    opened = True
except PermissionError:
    pass
print(opened)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_another_user_can_neither_open_a_lane_nor_its_memory(
    server: Server, robot: RobotClient
) -> None:
    with RawLane(server) as raw, RobotClient(server.listening[0], lane=False) as connection:
        offer = offer_of(connection)
        memory = f"/proc/{os.getpid()}/fd/{raw.descriptor}"
        arguments = [offer.address, offer.token, memory]
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *arguments], capture_output=True, text=True
        )
        assert done.stdout == "False\n", done.stderr
        lane = open_lane(offer)  # the token was not used up
        assert lane is not None
        lane.close()


def test_a_process_of_another_user_is_refused_whatever_it_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_host, "_user_of", lambda connection: os.geteuid() + 1)
    with RobotClient(server.listening[0]) as robot:
        ask(robot, 1.0)
        assert robot._lane is None
    assert counter(server, "lane.refused") == 1


def lie(raw: RawLane, **wrong: int) -> tuple[Block, int]:
    """A block that is as it should be but for what is `wrong`."""
    placed = place(request(), raw.requests)
    assert placed is not None
    assert isinstance(placed[1], tuple)
    (offset, generation), length = placed[1]
    fields = {"offset": offset, "generation": generation, "length": length, **wrong}
    return Block(fields["offset"], fields["generation"]), fields["length"]


AREA = 32 << 20
LIES = {
    "beyond the memory": ({"offset": 1 << 31}, "block of 160000 bytes at 2147483648"),
    "in the server's area": ({"offset": AREA}, f"bytes at {AREA}, wanted one .* 0 to {AREA}"),
    "across the areas": ({"offset": AREA - 64}, f"at {AREA - 64}"),
    "beside a block": ({"offset": 8}, "at 8, wanted one at a multiple of 64"),
    "longer than the memory": ({"length": 2**32 - 1}, "block of 4294967295 bytes"),
    "another generation": ({"generation": 99}, "of generation 1, the packet says 99"),
    "longer than its tensor": ({"length": 160_004}, "frame of 160004 bytes"),
    "shorter than its tensor": ({"length": 0}, "frame of 0 bytes"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_a_block_is_rejected_and_the_lane_goes_on(server: Server, name: str) -> None:
    wrong, message = LIES[name]
    with RawLane(server) as raw:
        raw.tell([request(11)[0], lie(raw, **wrong)])
        reply, _ = raw.hear()
        assert isinstance(reply, Rejected)
        assert (reply.id, reply.code) == (11, "malformed")
        assert re.search(message, reply.reason), reply.reason
        raw.tell(place(request(12), raw.requests) or [])
        assert isinstance(raw.hear()[0], Result)


def test_a_block_that_was_reused_while_its_request_ran_gives_no_result(server: Server) -> None:
    engine = obedient(server, "identity")
    engine.gate.clear()
    with RawLane(server) as raw:
        frames = place(request(13), raw.requests)
        assert frames is not None
        raw.tell(frames)
        until(lambda: engine.runs == 1)
        GENERATION.pack_into(raw.memory, frames[1][0].offset, 2)  # type: ignore[union-attr]
        engine.gate.set()
        reply, released = raw.hear()
        assert isinstance(reply, Rejected)
        assert (reply.id, reply.code) == (13, "malformed")
        assert "reused before the request was answered" in reply.reason
        assert released == [frames[1][0]]
    assert counter(server, "dropped.overwritten") == 1


@pytest.mark.parametrize(
    "packet",
    [
        b"\xff" * 40,
        b"\x01",
        pack([b"h"], [Block(AREA, 5)]),  # a release of what was not given out
        pack([b"h"], [Block(3, 1)] * 1000),
        bytes(MAX_PACKET_BYTES - 1),
    ],
    ids=["garbage", "one byte", "a release", "releases", "zeros"],
)
def test_a_packet_that_is_none_ends_its_lane_and_no_other(
    server: Server, robot: RobotClient, packet: bytes
) -> None:
    with RawLane(server) as raw:
        raw.socket.send(packet)
        reply, _ = raw.hear()
        assert isinstance(reply, Rejected)
        assert (reply.id, reply.code) == (0, "malformed")
        assert raw.is_ended()
    ask(robot, 1.0)
    assert robot._lane is not None


def test_a_header_that_is_none_is_rejected_as_over_the_socket(server: Server) -> None:
    with RawLane(server) as raw:
        for header in (b"", b"\xc1", encode(messages.Ping(id=5, client_time_ns=0))[0]):
            raw.tell([header])
            reply, _ = raw.hear()
            assert isinstance(reply, Rejected)
            assert (reply.id, reply.code) == (5 if header[1:] else 0, "malformed")


def test_the_memory_cannot_be_cut_from_under_the_server(server: Server) -> None:
    with RawLane(server) as raw:
        for size in (0, AREA, 4 * AREA):
            with pytest.raises(PermissionError):
                os.ftruncate(raw.descriptor, size)


def test_a_client_that_does_not_read_loses_its_lane_and_the_server_goes_on(
    server: Server, robot: RobotClient
) -> None:
    with RawLane(server) as raw:
        raw.socket.settimeout(0.2)
        with contextlib.suppress(OSError):
            while True:
                raw.tell(request(1, 4000))
        until(lambda: lanes_of(server) == 1)
        assert counter(server, "dropped.reply_peer_does_not_read") >= 1
    ask(robot, 1.0)
    assert robot._lane is not None
