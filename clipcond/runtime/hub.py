"""The model hub from outside: whether it answers, what to say where it does not, and foreign errors in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from clipcond.wording import first_line

_UNREACHABLE = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError")


def why_not(error: BaseException) -> str:
    """Return the reason why something of the hub could not be loaded: out of reach, or the library's own."""
    chain: BaseException | None = error
    while chain is not None:
        if type(chain).__name__ in _UNREACHABLE:
            return "are not in the local cache, and the hub cannot be reached"
        chain = chain.__cause__ or chain.__context__
    return f"cannot be fetched or read: {first_line(error)}"


def _hub_answers() -> bool:
    """True if the hub's host takes a connection; assumed behind a proxy, which a plain connection would go around."""
    from huggingface_hub import constants

    if getproxies():
        return True
    address = urlsplit(constants.ENDPOINT)
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
    """Use the cache alone where the hub does not answer: its client would retry for most of a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
