"""Passes the messages of one TCP connection to the intake, the metrics and the queue of replies."""

from __future__ import annotations

from collector.framing.decoder import Decoder, Message, Received
from collector.framing.frame_decoder import Framed
from collector.ingest.batch_order import Lane, Numbered
from collector.ingest.group_commit import Intake
from collector.inspection import traffic_capture
from collector.inspection.protocol_metrics import Tally, tally_for
from collector.listeners.connection.connection_log import ConnectionLog
from collector.listeners.connection.message_admission import MessageAdmission
from collector.listeners.connection.reply_queue import ReplyQueue
from collector.listeners.connection.time_limits import TimeLimits
from collector.listeners.rejected_messages import count_rejected, set_aside
from collector.listeners.tracker_logins import Login, Logins
from telemetry.hot_store.entry_codec import Aside
from telemetry.hot_store.operations.append import Owner
from telemetry.model import problems


class MessageDispatch:
    """Passes on the messages of one connection, in order.

    With `logins` it registers the device that a tracker names. The connection closes after that device has logged in
    over a newer connection.
    """

    __slots__ = (
        "_admission",
        "_intake",
        "_lane",
        "_limits",
        "_log",
        "_login",
        "_logins",
        "_replies",
        "_tally",
        "_tracker",
        "address_owner",
        "device_id",
    )

    def __init__(
        self,
        intake: Intake,
        admission: MessageAdmission,
        replies: ReplyQueue,
        connection_log: ConnectionLog,
        logins: Logins | None,
        limits: TimeLimits,
    ) -> None:
        self._intake = intake
        self._admission = admission
        self._replies = replies
        self._log = connection_log
        self._logins = logins
        self._limits = limits
        self._lane: Lane | None = None  # made for the first numbered batch
        self._tally: Tally | None = None  # set once the first bytes have shown the protocol
        self._tracker: Framed | None = None  # set then, too: the decoder, if it is a tracker's
        self._login: Login | None = None  # made once a tracker has named itself
        self.address_owner: Owner | None = None
        """The address, whose share counts if no key is required."""

        self.device_id = ""
        """The device that the tracker named last."""

    @property
    def has_failed(self) -> bool:
        """True if nothing more can be stored in order: the sender must reconnect."""
        return self._lane is not None and self._lane.is_over

    @property
    def is_gateway(self) -> bool:
        """True if the connection has named several devices."""
        return self._login is not None and self._login.is_gateway

    def close(self) -> None:
        """Forget the login."""
        if self._login is not None:
            self._login.close()

    def take(self, messages: list[Message], decoder: Decoder, is_over: bool) -> bool:
        """Pass on messages of `decoder`. Returns True if the connection was over before, or a last message came."""
        records = 0
        aside: list[Aside] = []
        tally = self._tally or self._find_tally(decoder)
        for message in messages:
            if isinstance(message, Received):
                records += len(message.records)
                self._hand_over(message)
                if message.aside:
                    tally.reject(problems.INVALID_RECORD, len(message.aside))
            else:
                self._replies.add(message)
                count_rejected(message, tally)
                aside += message.aside
                self._log.note_rejected(message, decoder)
            is_over = is_over or message.last
        set_aside(self._intake, aside)
        tally.count(len(messages), records)
        if self._tracker is not None and self._tracker.device_id != self.device_id and not is_over:
            self._log_in(self._tracker.device_id, messages)
        return is_over

    def _hand_over(self, message: Received) -> None:
        """Pass a message's records to the intake, which resolves the reply."""
        reply = self._replies.add(message.without_records())
        owner = self.address_owner or message.owner
        numbered = self._numbered(message, owner) if message.sender else None
        self._intake.hand_over(reply.resolve, message.records, message.size_bytes, numbered, message.aside, owner)

    def _numbered(self, message: Received, owner: Owner) -> Numbered:
        if self._lane is None:
            self._lane = Lane()
        return Numbered(message.sender, message.number, self._lane, owner)

    def _find_tally(self, decoder: Decoder) -> Tally:
        """The protocol's counters, once the first bytes have shown which protocol it is."""
        tally = tally_for(decoder, "tcp")
        if tally.is_known:
            self._tally, innermost = tally, traffic_capture.innermost(decoder)
            self._tracker = innermost if isinstance(innermost, Framed) else None
        return tally

    def _log_in(self, device_id: str, messages: list[Message]) -> None:
        """Register the device that a tracker has named, if the connection may send its records."""
        if not any(isinstance(message, Received) for message in messages):
            return
        self.device_id = device_id
        if self._logins is None or not self._admission.covers(device_id):
            return
        if self._login is None:
            self._login = Login(self._logins, self._limits.give_way)
        self._login.name(device_id)
