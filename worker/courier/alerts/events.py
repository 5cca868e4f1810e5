"""Events for alert webhooks: each is JSON with its own id, and a post contains several, signed.

{"id": …, "event": "device.silent", "at": …, "device_id": …, "last_seen": …, "silent_after_s": …}
{"id": …, "event": "device.back", "at": …, "device_id": …, "last_seen": …, "last_seen_before": …}
{"id": …, "event": "box.not_ready", "at": …, "reasons": […]}
{"id": …, "event": "box.ready", "at": …, "reasons": []}
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence

import msgspec

from telemetry.model.utc import iso
from worker.courier.alerts.silence_rules import Turn

SILENT, BACK, NOT_READY, READY = "device.silent", "device.back", "box.not_ready", "box.ready"

SIGNATURE, TIMESTAMP = "Whimbrel-Signature", "Whimbrel-Timestamp"

_encode = msgspec.json.Encoder().encode


def kind_of(turn: Turn) -> str:
    """Name of the event for a change of a device."""
    return SILENT if turn.is_silent else BACK


def device_event(turn: Turn, at_ms: int) -> bytes:
    """The event for a change of a device."""
    details: dict[str, object] = {
        "device_id": turn.device.decode(errors="replace"),
        "last_seen": iso(turn.seen_ms * 1_000),
    }
    if turn.is_silent:
        details["silent_after_s"] = turn.time_out_ms // 1_000
    else:
        details["last_seen_before"] = iso(turn.before_ms * 1_000)
    return _event(kind_of(turn), at_ms, details)


def box_event(reasons: Sequence[str], at_ms: int) -> bytes:
    """The event for a change of the box's readiness."""
    return _event(NOT_READY if reasons else READY, at_ms, {"reasons": list(reasons)})


def _event(kind: str, at_ms: int, details: dict[str, object]) -> bytes:
    return _encode({"id": secrets.token_hex(16), "event": kind, "at": iso(at_ms * 1_000), **details})


def body_of(host: str, events: Sequence[bytes]) -> bytes:
    """The body of a post."""
    return _encode({"host": host, "events": [msgspec.Raw(event) for event in events]})


def signed(secret: str, body: bytes, now_s: int) -> dict[str, str]:
    """Headers of the signature: HMAC-SHA256 over time, a full stop and the body; none without a secret."""
    if not secret:
        return {}
    digest = hmac.new(secret.encode(), f"{now_s}.".encode() + body, hashlib.sha256).hexdigest()
    return {TIMESTAMP: str(now_s), SIGNATURE: f"sha256={digest}"}
