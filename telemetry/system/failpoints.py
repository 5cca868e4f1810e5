"""Failpoints: tests can pause or kill a program at named steps of saving and compacting.

`WHIMBREL_STEPS` names a unix socket. Before each step a program connects, sends the step's name, and continues when it
receives a byte or the connection closes. Without the variable nothing is sent.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

VARIABLE = "WHIMBREL_STEPS"

Step = Callable[[str], None]


def step_reporter(protocol: str) -> Step:
    """Returns the function to call with the name of each step of `protocol` before the step."""
    listener = os.environ.get(VARIABLE)
    return partial(_tell, listener, protocol) if listener else no_step_reporter


def no_step_reporter(step: str) -> None:
    """Do nothing: the function without a listener."""


def _tell(listener: str, protocol: str, step: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(listener)
            connection.sendall(f"{protocol} {step}\n".encode())
            connection.recv(1)
        except OSError:  # the listener has ended
            return
