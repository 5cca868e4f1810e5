"""TCP keepalive and user timeout: the kernel ends connections whose peer has disappeared.

A tracker whose network is gone sends neither FIN nor RST. Without probes its connection would stay open until the idle
timeout.
"""

from __future__ import annotations

import socket

PROBES = 5
"""Probe intervals within the keepalive time."""


def set_keepalive(listening: socket.socket, keepalive_s: int, user_timeout_s: int) -> None:
    """Set both on a listening socket; Linux passes them on to the connections that it accepts. 0 leaves one off.

    Probes begin after `keepalive_s` of silence. The connection ends once its peer has acknowledged neither data nor
    probes for `user_timeout_s`.
    """
    if keepalive_s:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive_s)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, keepalive_s // PROBES))
    if user_timeout_s:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_s * 1_000)
