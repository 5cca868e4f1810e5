"""The named steps of saving and compacting, told to whoever tests what becomes of a program that ends at one.

`WHIMBREL_STEPS` names a unix socket. Before each step a program connects, says which, and goes on when it gets
a byte or is hung up on. Without the variable nobody is told anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import partial

VARIABLE = "WHIMBREL_STEPS"

Step = Callable[[str], None]


def teller(protocol: str) -> Step:
    """What is to be called with the name of each step of `protocol` before it is taken."""
    listener = os.environ.get(VARIABLE)
    return partial(_tell, listener, protocol) if listener else untold


def untold(step: str) -> None:
    """Tell nobody."""


def _tell(listener: str, protocol: str, step: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(listener)
            connection.sendall(f"{protocol} {step}\n".encode())
            connection.recv(1)
        except OSError:  # whoever listened is gone: nobody wants to know
            return
