"""Same-host lanes: what comes over them, who lies, who dies, and what stays behind."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET
from numpy.typing import NDArray

from limpet.contracts import messages
from limpet.contracts.errors import LimpetError, RequestTimeoutError
from limpet.contracts.lane import (
    ACCEPTED,
    BLOCK_HEAD_BYTES,
    GENERATION,
    MAX_PACKET_BYTES,
    Block,
    pack,
    unpack,
)
from limpet.contracts.messages import Infer, LaneOffer, Rejected, Reply, Result
from limpet.contracts.wire import Buffer, decode_reply, encode
from limpet.runtime import lane_host
from limpet.runtime.bench.identity import write_identity_bundle
from limpet.runtime.client import RobotClient
from limpet.runtime.connection import Connection
from limpet.runtime.lane import LaneSeeker, is_same_host, open_lane
from limpet.runtime.lane_memory import SUPPORTED, Area, map_memory, place
from limpet.runtime.server import Server
from tests.bundles import anomaly_bundle
from tests.runtime.serving import PATIENCE_S, obedient, serving, until

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="lanes need Linux: memfd and its seals")

LARGE = 40_000
"""float32 values of a row that goes through the memory: 160 KB."""


def wide_serving(folder: Path, **options: Any) -> AbstractContextManager[Server]:
    """`serving` with an identity that takes rows of any size."""
    write_identity_bundle(folder / "identity")
    anomaly_bundle(folder / "anomaly")
    return serving(folder, **options)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with wide_serving(tmp_path) as served:
        yield served


@pytest.fixture
def robot(server: Server) -> Iterator[RobotClient]:
    with RobotClient(server.listening[0]) as connected:
        take_lane(connected)
        yield connected


def x(value: float, size: int = LARGE) -> dict[str, NDArray[np.float32]]:
    return {"x": np.full((1, size), value, np.float32)}


def ask(robot: RobotClient, value: float, size: int = LARGE) -> NDArray[np.float32]:
    y = robot.infer("identity", x(value, size), timeout_s=PATIENCE_S).outputs["y"]
    np.testing.assert_array_equal(y, x(value, size)["x"])
    return y


def take_lane(robot: RobotClient) -> None:
    """The first request asks for a lane beside itself."""
    ask(robot, 0.0, 4)
    assert robot._lane is not None


def counter(server: Server, name: str) -> int:
    return server._metrics.counters().get(name, 0)


def lanes_of(server: Server) -> int:
    assert server._lanes is not None
    return len(server._lanes._lanes)


def offer_of(connection: Connection) -> LaneOffer:
    hello = messages.Hello(id=connection.next_id(), client="liar", lane=True)
    welcome, _ = connection.request(hello, messages.Welcome, PATIENCE_S)
    assert isinstance(welcome.lane, LaneOffer)
    return welcome.lane


class RawLane:
    """Speaks the protocol without keeping to its rules."""

    def __init__(self, server: Server) -> None:
        with RobotClient(server.listening[0], lane=False) as connection:
            offer = offer_of(connection)
        self.socket = connect(offer)
        self.socket.send(bytes.fromhex(offer.token))
        sizes, (self.descriptor,), _, _ = socket.recv_fds(self.socket, ACCEPTED.size, 1)
        self.area_bytes, _ = ACCEPTED.unpack(sizes)
        self.memory = map_memory(self.descriptor, self.area_bytes)
        self.requests = Area(self.memory, 0, self.area_bytes)
        self.replies = Area(self.memory, self.area_bytes, self.area_bytes)

    def tell(
        self, frames: Sequence[Buffer | tuple[Block, int]], released: Sequence[Block] = ()
    ) -> None:
        self.socket.send(pack(frames, released))

    def hear(self) -> tuple[Reply, list[Block]]:
        packet = self.socket.recv(MAX_PACKET_BYTES)
        assert packet, "the server ended the lane"
        described, released = unpack(packet)
        frames = [self.replies.read(*f) if isinstance(f, tuple) else f for f in described]
        return decode_reply(frames)[0], released

    def is_ended(self) -> bool:
        try:
            return self.socket.recv(MAX_PACKET_BYTES) == b""
        except ConnectionError:
            return True

    def __enter__(self) -> RawLane:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        os.close(self.descriptor)


def connect(offer: LaneOffer) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"\0{offer.address}")
    connection.settimeout(PATIENCE_S)
    return connection


def request(request_id: int = 7, size: int = LARGE) -> list[Buffer]:
    return encode(Infer(id=request_id, model="identity"), x(1.0, size))


def mapped_lanes() -> int:
    """Lanes' memory that this process has mapped."""
    return Path("/proc/self/maps").read_text(encoding="utf-8").count("memfd:limpet-lane")


# What comes over them ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 16_000, 16_368, 16_384, LARGE, 700_000])
def test_results_are_those_of_their_requests_at_every_size(
    server: Server, robot: RobotClient, size: int
) -> None:
    lane = robot._lane
    for value in range(1, 6):
        ask(robot, value, size)
    assert robot._lane is lane
    assert counter(server, "lane.opened") == 1
    assert counter(server, "requests.Infer") == 6


def test_arrays_that_came_stay_as_they_are_whatever_comes_after_them(tmp_path: Path) -> None:
    with wide_serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
        take_lane(robot)
        kept = [ask(robot, value) for value in range(1, 30)]
        part = ask(robot, 99.0)[0, 5:9]
        for value in range(100, 120):
            ask(robot, value)
        assert not kept[0].flags.writeable
    for value, array in enumerate(kept, start=1):
        assert np.all(array == value)
    assert part.tolist() == [99.0] * 4
    del kept, array, part
    assert until(lambda: mapped_lanes() == 0)


def test_blocks_come_back_and_the_same_memory_is_used_again(
    server: Server, robot: RobotClient
) -> None:
    assert server._lanes is not None
    (lane,) = server._lanes._lanes.values()
    for value in range(500):  # 160 MB in all, of 32
        ask(robot, value)
        assert lane._replies.taken <= 2
        assert robot._lane is not None
        assert robot._lane._requests.taken == 0


def test_what_has_no_room_comes_over_the_socket(tmp_path: Path) -> None:
    with wide_serving(tmp_path, lane_mb=1) as server, RobotClient(server.listening[0]) as robot:
        take_lane(robot)
        ask(robot, 1.0, 400_000)  # larger than an area
        kept = [ask(robot, value) for value in range(12)]  # replies fill theirs
        assert all(np.all(array == value) for value, array in enumerate(kept))
        assert robot._lane is not None
        del kept
        ask(robot, 3.0)
        ask(robot, 4.0)
        assert robot._lane._held == {}


def test_a_late_reply_over_a_lane_is_not_taken_for_the_next_one(
    server: Server, robot: RobotClient
) -> None:
    engine = obedient(server, "identity")
    engine.gate.clear()
    for value in (1.0, 2.0):
        with pytest.raises(RequestTimeoutError, match=r"no reply from .* to Infer within 0.05 s"):
            robot.infer("identity", x(value), timeout_s=0.05)
    engine.gate.set()
    for value in (3.0, 4.0):
        ask(robot, value)
    assert robot._lane is not None
    assert robot._lane._requests.taken == 0


def test_errors_are_those_of_the_socket(server: Server, robot: RobotClient) -> None:
    with RobotClient(server.listening[0], lane=False) as other:
        for inputs in ({"x": np.ones((1, 4))}, {"z": np.ones((1, LARGE), np.float32)}):
            told = []
            for each in (robot, other):
                with pytest.raises(LimpetError) as caught:
                    each.infer("identity", inputs)
                told.append(str(caught.value))
            assert told[0] == told[1]
        assert other._lane is None
    assert counter(server, "rejected.bad_input") == 4


def test_many_clients_at_once_get_each_their_own_results(server: Server) -> None:
    wrong: list[Exception] = []

    def work(first: int) -> None:
        try:
            with RobotClient(server.listening[0]) as mine:
                for value in range(first, first + 30):
                    ask(mine, value)
        except (LimpetError, AssertionError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=[1000 * i]) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    until(lambda: lanes_of(server) == 0)


# Who gets one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "same"),
    [
        ("tcp://127.0.0.1:7700", True),
        ("tcp://localhost:7700", True),
        ("ipc:///run/limpet.sock", True),
        ("tcp://192.168.1.4:7700", False),
        ("tcp://robot.local:7700", False),
        ("tcp://localhost.example.com:7700", False),
    ],
)
def test_a_lane_is_asked_for_on_the_same_host_only(endpoint: str, same: bool) -> None:
    assert is_same_host(endpoint) is same
    assert (LaneSeeker(endpoint, wanted=True).ask(lambda: 1, "c") is not None) is same
    assert LaneSeeker(endpoint, wanted=False).ask(lambda: 1, "c") is None


def test_where_there_is_none_the_socket_serves_and_nothing_is_asked_again(tmp_path: Path) -> None:
    with wide_serving(tmp_path, lane_mb=0) as server, RobotClient(server.listening[0]) as robot:
        for value in range(5):
            ask(robot, value)
        assert robot._lane is None
        assert counter(server, "requests.Hello") == 1
        assert robot.hello().lane is UNSET


def test_a_system_without_such_sockets_serves_without_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "x" * 200)  # too long a name
    with wide_serving(tmp_path) as server, RobotClient(server.listening[0]) as robot:
        ask(robot, 1.0)
        ask(robot, 2.0)
        assert server._lanes is None
        assert not robot.has_lane


def test_an_offer_of_another_host_cannot_be_taken_and_the_socket_serves(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = LaneOffer(address="limpet-of-another-host", token="00" * 16)
    assert open_lane(elsewhere) is None
    assert server._lanes is not None
    monkeypatch.setattr(server._lanes, "offer", lambda peer: elsewhere)
    with RobotClient(server.listening[0]) as robot:
        for value in range(5):
            ask(robot, value)
        assert robot._lane is None
    assert counter(server, "requests.Hello") == 1


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


# Who lies ----------------------------------------------------------------------------------------


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


# Who dies ----------------------------------------------------------------------------------------


VICTIM = """
import sys, numpy as np
from limpet.runtime.client import RobotClient
robot = RobotClient(sys.argv[1])
robot.infer("identity", {"x": np.ones((1, 4), np.float32)}, timeout_s=20.0)
assert robot._lane is not None
print("ready", flush=True)
sys.stdin.readline()
robot.infer("identity", {"x": np.ones((1, 40_000), np.float32)}, timeout_s=20.0)
"""


@contextlib.contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_client_killed_in_a_request_leaves_neither_memory_nor_files(server: Server) -> None:
    files = set(os.listdir("/dev/shm"))
    descriptors = len(os.listdir("/proc/self/fd"))
    engine = obedient(server, "identity")
    with child("-c", VICTIM, server.listening[0]) as victim:
        assert line_of(victim) == "ready"
        engine.gate.clear()
        runs = engine.runs
        assert victim.stdin is not None
        victim.stdin.write("\n")
        victim.stdin.flush()
        until(lambda: engine.runs > runs)
        assert mapped_lanes() == 1
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        until(lambda: lanes_of(server) == 0)
        engine.gate.set()  # whose inputs lie in that memory
    until(lambda: mapped_lanes() == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    assert set(os.listdir("/dev/shm")) <= files
    with RobotClient(server.listening[0]) as robot:
        take_lane(robot)


def test_a_server_killed_leaves_nothing_and_its_client_goes_on_with_the_next_one(
    tmp_path: Path,
) -> None:
    files = set(os.listdir("/dev/shm"))
    write_identity_bundle(tmp_path / "identity")
    config = tmp_path / "serve.toml"

    def serve(listen: str) -> Any:
        config.write_text(
            f'[server]\nlisten = ["{listen}"]\npublish = ["tcp://127.0.0.1:0"]\n'
            '[[models]]\nbundle = "identity"\n',
            encoding="utf-8",
        )
        return child("-m", "limpet.runtime.cli", "serve", str(config))

    with contextlib.ExitStack() as stack:
        with serve("tcp://127.0.0.1:0") as first:
            endpoint = line_of(first).split()[1]
            robot = stack.enter_context(RobotClient(endpoint))
            take_lane(robot)
            kept = ask(robot, 5.0)
            first.send_signal(signal.SIGKILL)
            first.wait()
        start = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            robot.infer("identity", x(1.0), timeout_s=0.3)
        assert time.monotonic() - start < 2.0
        assert robot._lane is None
        assert np.all(kept == 5.0)
        del kept
        assert set(os.listdir("/dev/shm")) <= files
        assert mapped_lanes() == 0
        with serve(endpoint) as second:
            assert line_of(second).startswith("ready")
            ask(robot, 6.0)
            until(lambda: ask(robot, 7.0) is not None and robot._lane is not None)


# The memory --------------------------------------------------------------------------------------


def test_blocks_never_overlap_and_all_room_comes_back() -> None:
    size = 64 * 1024
    memory = mmap.mmap(-1, 2 * size)
    area = Area(memory, size, size)
    draw = np.random.default_rng(0)
    held: dict[Block, bytes] = {}
    refused = 0
    for number in range(3000):
        if held and draw.random() < 0.5:
            block = list(held)[draw.integers(len(held))]
            assert bytes(area.read(block, len(held[block]))) == held.pop(block)
            area.free(block)
            continue
        frame = bytes([number % 256]) * int(draw.integers(1, 20_000))
        block = area.put(frame)
        if block is None:
            refused += 1
            continue
        assert block.offset % BLOCK_HEAD_BYTES == 0
        held[block] = frame
    assert refused > 10
    for block, frame in held.items():
        assert bytes(area.read(block, len(frame))) == frame
        area.free(block)
    assert area.taken == 0
    whole = area.put(bytes(size - BLOCK_HEAD_BYTES))
    assert whole is not None
    assert whole.offset == size
    assert memory[:size] == bytes(size), "the other side's area is untouched"
