"""Sends bytes that were made before the clock starts over many connections, with as little CPU as Python allows.

One loop over plain sockets. Of each connection up to `window` messages are under way at once; what comes back is only
counted. With a rate the loop is open: a message's time counts from when it was due, not from when it was sent.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

READ_BYTES = 2**18
STALLED_S = 60.0
MAX_EVENTS = 2_000


class Message(NamedTuple):
    """What is sent at once, how many records it has, and how many answers it gets."""

    data: bytes
    records: int = 1
    answers: int = 1


class Answers(Protocol):
    """What comes back over one connection."""

    def feed(self, data: bytes) -> int:
        """How many answers became whole. Raises `RuntimeError` if one isn't good."""
        ...


Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""


class Connection:
    """One connection and the messages that go over it."""

    def __init__(self, address: Address, messages: Iterable[Message], answers: Answers, window: int = 1) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, 10)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.messages = iter(messages)
        self.unanswered: deque[tuple[float, Message]] = deque()
        self.rest = memoryview(b"")
        self.is_ready = False
        self.window = window
        self._answers = answers
        self._open_answers = 0

    def send(self, message: Message, due_s: float) -> bool:
        """Send a message as far as it goes now; False if a rest waits."""
        self.unanswered.append((due_s, message))
        self.rest = memoryview(message.data)
        return self.flush()

    def flush(self) -> bool:
        """Send on; False if a rest still waits."""
        try:
            while self.rest:
                self.rest = self.rest[self.socket.send(self.rest) :]
        except BlockingIOError:
            return False
        return True

    def receive(self) -> list[tuple[float, Message]]:
        """The messages that are answered now."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server closed a connection")
        done = []
        self._open_answers += self._answers.feed(data)
        while self.unanswered and self._open_answers >= self.unanswered[0][1].answers:
            done.append(self.unanswered.popleft())
            self._open_answers -= done[-1][1].answers
        return done

    @property
    def has_room(self) -> bool:
        """Whether one more message may go."""
        return len(self.unanswered) < self.window and not self.rest


class Load(NamedTuple):
    """What was sent and answered, in how long, each message's time in ms, and what sending cost."""

    records: int
    seconds: float
    taken_ms: list[float]
    sender_cpu_s: float

    @property
    def per_s(self) -> float:
        """Records a second."""
        return self.records / self.seconds

    def ms(self, part: float) -> float:
        """The time that this part of the messages stayed within."""
        ordered = sorted(self.taken_ms)
        return ordered[min(int(len(ordered) * part), len(ordered) - 1)]


class Sending:
    """Runs until all messages are answered, or, with `seconds`, sends for so long. `rate` is in records a second."""

    def __init__(self, connections: Sequence[Connection], rate: float = 0.0, seconds: float | None = None) -> None:
        self._connections = connections
        self._by_file = {one.socket.fileno(): one for one in connections}
        self._rate = rate
        self._seconds = seconds
        self._ready = deque(connections)
        self._poll = select.epoll()
        self._sent = self._done = self._under_way = 0
        self._taken_s: list[float] = []
        self._start_s = 0.0
        for one in connections:
            one.is_ready = True
            self._poll.register(one.socket, select.EPOLLIN)

    def run(self) -> Load:
        """Send it all."""
        cpu_s, self._start_s = time.process_time(), time.perf_counter()
        try:
            while not self._is_over(wait_s := self._send_due()):
                self._take_answers(STALLED_S if wait_s is None else wait_s)
        finally:
            self._poll.close()
            for one in self._connections:
                one.socket.close()
        seconds = max(time.perf_counter() - self._start_s, self._seconds or 0.0)
        return Load(self._done, seconds, [1e3 * s for s in self._taken_s], time.process_time() - cpu_s)

    def _is_over(self, wait_s: float | None) -> bool:
        return wait_s is None and not self._under_way

    def _send_due(self) -> float | None:
        """Send what is due; returns in how long the next will be, None if nothing more is sent by itself."""
        while self._ready:
            now_s = time.perf_counter()
            due_s = self._start_s + self._sent / self._rate if self._rate else now_s
            if self._seconds is not None and max(now_s, due_s) - self._start_s >= self._seconds:
                return None
            if due_s > now_s:
                return due_s - now_s
            one = self._ready.popleft()
            one.is_ready = False
            if (message := next(one.messages, None)) is not None:
                self._send(one, message, due_s)
        return None

    def _send(self, one: Connection, message: Message, due_s: float) -> None:
        self._sent += message.records
        self._under_way += 1
        if not one.send(message, due_s):
            self._poll.modify(one.socket, select.EPOLLIN | select.EPOLLOUT)
        self._offer(one)

    def _offer(self, one: Connection) -> None:
        if not one.is_ready and one.has_room:
            one.is_ready = True
            self._ready.append(one)

    def _events(self, wait_s: float) -> list[tuple[int, int]]:
        if self._rate:
            select.select(
                [self._poll], [], [], wait_s
            )  # epoll's own patience is in whole ms: what is due would be late
            return self._poll.poll(0, MAX_EVENTS)
        return self._poll.poll(wait_s, MAX_EVENTS)

    def _take_answers(self, wait_s: float) -> None:
        events = self._events(wait_s)
        if not events and wait_s >= STALLED_S:
            raise TimeoutError(f"no answer for {STALLED_S:g} s")
        for file, event in events:
            one = self._by_file[file]
            if event & select.EPOLLOUT and one.flush():
                self._poll.modify(one.socket, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                done, now_s = one.receive(), time.perf_counter()
                self._under_way -= len(done)
                for due_s, message in done:
                    self._done += message.records
                    self._taken_s.append(now_s - due_s)
            self._offer(one)


def send(connections: Sequence[Connection], rate: float = 0.0, seconds: float | None = None) -> Load:
    """Send what the connections have."""
    return Sending(connections, rate, seconds).run()
