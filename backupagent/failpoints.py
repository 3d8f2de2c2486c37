"""Named places where a test makes the program fail, hang or die.

``BACKUPAGENT_FAILPOINTS=name=action[*count][;name=action...]`` in the environment arms them; actions are

``nospace``
    raise ``OSError(ENOSPC)``, as a write to a full file system does;
``unavailable``
    raise ``StoreUnavailable``, as a store that answers 503 does;
``sigterm``, ``sigkill``
    send that signal to this process, and go on when it was heard;
``pause(SECONDS)``
    sleep.

A count makes the point act only at its n-th hit, e.g. ``transfer.part=sigkill*3``. Unarmed points cost one
look-up in an empty dict. Unknown actions are refused when the module is loaded, so that a test cannot pass
because of a typing error. Every name is listed in ``POINTS``; a test holds the list against the code.
"""

import errno
import os
import re
import signal
import time
from collections.abc import Callable, Mapping

from backupagent.errors import ConfigError, StoreUnavailable

VARIABLE = "BACKUPAGENT_FAILPOINTS"

HEARD_S = 0.5
"""After this a signal that was sent has reached whoever acts on it, seconds."""

POINTS: dict[str, str] = {
    "snapshot.stream": "a chunk of the full snapshot has come from etcd",
    "snapshot.publish": "all parts of a full are uploaded, it is not yet visible",
    "snapshot.manifest": "the snapshot is about to get its manifest",
    "snapshot.delta": "a delta is about to be uploaded",
    "transfer.part": "a part was downloaded and is about to be uploaded",
    "transfer.begun": "an upload was begun, its name is about to be remembered",
    "transfer.complete": "all parts of an object are uploaded, it is not yet visible",
    "copy.discover": "source and target are about to be listed",
    "copy.publish": "an object was copied, its manifest is about to be written",
    "restore.base": "a piece of the full is about to be written",
    "restore.delta": "a run of pages made from deltas is about to be written",
    "restore.finish": "small buckets and metas are about to be written",
    "restore.raft": "WAL and snap files are about to be written",
    "restore.publish": "the data directory is complete and about to be renamed",
    "local.write": "the local store is about to write bytes",
    "local.rename": "the local store is about to make an object visible",
}


def _nospace() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _unavailable() -> None:
    message = "failpoint"
    raise StoreUnavailable(message, op="failpoint")


def _signal(number: signal.Signals) -> Callable[[], None]:
    def send() -> None:
        os.kill(os.getpid(), number)
        _sleep(HEARD_S)

    return send


def _pause(seconds: float) -> Callable[[], None]:
    return lambda: _sleep(seconds)


def _sleep(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - a failpoint delays the real thing, not a clock


def _action(text: str) -> Callable[[], None]:
    simple: Mapping[str, Callable[[], None]] = {
        "nospace": _nospace,
        "unavailable": _unavailable,
        "sigterm": _signal(signal.SIGTERM),
        "sigkill": _signal(signal.SIGKILL),
    }
    if text in simple:
        return simple[text]
    pause = re.fullmatch(r"pause\(([0-9]+(?:\.[0-9]+)?)\)", text)
    if pause is None:
        message = f"{VARIABLE}: unknown action {text!r}"
        raise ConfigError(message)
    return _pause(float(pause[1]))


class _Armed:
    def __init__(self, action: Callable[[], None], at_hit: int) -> None:
        self._action = action
        self._at_hit = at_hit
        self._hits = 0

    def hit(self) -> None:
        self._hits += 1
        if self._at_hit in (0, self._hits):
            self._action()


def parse(text: str) -> dict[str, _Armed]:
    """Read the value of the environment variable.

    Raises:
        ConfigError: a point or an action that does not exist, or a count that is none.
    """
    armed: dict[str, _Armed] = {}
    for item in filter(None, (piece.strip() for piece in text.split(";"))):
        name, _, rest = item.partition("=")
        action, counted, count = rest.partition("*")
        if name not in POINTS:
            message = f"{VARIABLE}: unknown failpoint {name!r}"
            raise ConfigError(message)
        if counted and not re.fullmatch("[1-9][0-9]*", count):
            message = f"{VARIABLE}: {count!r} is no count of hits"
            raise ConfigError(message)
        armed[name] = _Armed(_action(action), int(count or 0))
    return armed


_armed = parse(os.environ.get(VARIABLE, ""))


def hit(name: str) -> None:
    """Pass the named place; does nothing unless it was armed."""
    if _armed and name in _armed:
        _armed[name].hit()


def arm(text: str) -> None:
    """Replace what is armed, for tests inside the process; an empty text disarms everything."""
    global _armed  # noqa: PLW0603 - the one switch of this mechanism
    _armed = parse(text)
