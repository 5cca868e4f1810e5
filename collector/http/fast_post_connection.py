"""A connection with the fast path of `POST /v1/records` (fast_post.py).

A request on the fast path is answered in one write, without an ASGI scope and task. Its body is gathered first, because
many clients send it after the head; while it is incomplete it counts among the arriving ones (arriving_bytes.py) and
holds its key. All other requests go to the application.
"""

from __future__ import annotations

from typing import Any

from collector.http.fast_post import PATH, FastPosts, Post, Stored
from collector.http.request_headers import sender
from collector.ingest.arriving_bytes import Upload
from collector.ingest.shard_writer import Outcome
from telemetry.http.direct_response import DirectConnection
from telemetry.model.api_keys import Denied

_PATH = PATH.encode()


class FastPostConnection(DirectConnection):
    """One connection. `_pending` is a request on the fast path that is not complete yet."""

    def __init__(self, posts: FastPosts, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._posts = posts
        self._pending: Post | None = None
        self._upload: Upload | None = None  # of a body that did not arrive together with its head
        self._holds_key = False

    # Receiving ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._pending is not None and not self._pending.is_complete:
            self._hold(self._pending)

    def _feed(self, piece: bytes) -> None:
        super()._feed(piece)
        if self._pending is not None and self._pending.is_complete:
            self._store(self._pending)

    def on_headers_complete(self) -> None:
        self._pending = self._begin()
        if self._pending is None:
            super().on_headers_complete()
        else:
            self._is_in_head = False

    def on_body(self, body: bytes) -> None:
        if self._pending is None:
            super().on_body(body)
        else:
            self._gathered_bytes = 0
            self._pending.body += body

    def on_message_complete(self) -> None:
        if self._pending is None:
            super().on_message_complete()
        else:
            self._pending.is_complete = True
            self._complete()
            self._release(self._pending)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pending is not None:
            self._release(self._pending)
        super().connection_lost(exc)

    def _begin(self) -> Post | None:
        if self.url != _PATH or not self.may_answer(b"POST"):
            return None
        return self._posts.begin(self.headers, self.client, self._certified)

    # An incomplete body ------------------------------------------------------------------------------

    def _hold(self, post: Post) -> None:
        """Hold the key and count the body while it is incomplete; reject it if there is no room."""
        if not self._holds_key:
            self._holds_key = True
            holding = self._posts.checks.holding(post.caller, self._certified)
            if holding is not None:
                holding.hold(post.caller, self)
        if not post.body:
            return
        if self._upload is None:
            self._upload = Upload(sender(self.client[0] if self.client else "", post.caller.key_id), self._give_up)
        if not self._posts.arriving.hold(self._upload, len(post.body)):
            self.refuse_busy("more bodies are arriving than may")

    def _release(self, post: Post) -> None:
        if self._holds_key:
            self._holds_key = False
            holding = self._posts.checks.holding(post.caller, self._certified)
            if holding is not None:
                holding.release(post.caller, self)
        if self._upload is not None:
            self._posts.arriving.hold(self._upload, 0)
            self._upload = None

    def _give_up(self) -> None:
        self._upload = None
        self.refuse_busy("given up: others need the room, and this body came slowly")

    def end(self, _denied: Denied) -> None:
        """The key of an incomplete request was withdrawn: the application rejects the request."""
        self._pass_on()

    def _pass_on(self) -> None:
        """Pass the pending request to the application."""
        post, self._pending = self._pending, None
        if post is None:
            return
        self._release(post)
        super().on_headers_complete()
        if post.body:
            super().on_body(post.body)
        if post.is_complete:
            super().on_message_complete()

    # Responding --------------------------------------------------------------------------------------

    def _store(self, post: Post) -> None:
        self._pending, self._waits = None, True
        if not self._posts.store(post, self._on_stored):
            self._pending, self._waits = post, False
            self._pass_on()

    def _on_stored(self, stored: Stored, outcome: Outcome) -> None:
        self._respond(self._posts.response(self.server_state.default_headers, stored, outcome))
