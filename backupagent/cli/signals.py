"""SIGINT and SIGTERM: the first asks the work to stop, the second ends the process at once.

The handlers only wake a thread that waits on a pipe. Setting a ``Cancel`` inside a handler could deadlock, since
the main thread may hold the lock of its event just then; and a thread also acts while the main thread is inside a
long call of a C library.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from backupagent.cancel import Cancel

STOPPING = (signal.SIGINT, signal.SIGTERM)

_END = b"\0"


def _handle(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: that there is a handler makes Python write the signal's number into the pipe."""


def _wait_for_signals(pipe: int, cancel: Cancel) -> None:
    while (received := os.read(pipe, 1)) != _END:
        if received[0] not in STOPPING:
            continue
        number = signal.Signals(received[0])
        if cancel.is_set:
            os._exit(128 + number)
        cancel.set(number.name)
        with suppress(OSError):  # nobody reads stderr: still a second signal must be heard
            print(f"{number.name}: stopping; again to end at once", file=sys.stderr)


def _be_an_ordinary_child() -> None:
    """Undo in a forked child what is meant for its parent.

    A child must not write into its parent's pipe: ctrl-C reaches both and would count twice. SIGINT is its
    parent's business, SIGTERM ends it.
    """
    if signal.getsignal(signal.SIGTERM) is _handle:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_be_an_ordinary_child)


@contextmanager
def stopping_by_signal() -> Iterator[Cancel]:
    """Give a token that SIGINT and SIGTERM set while the block runs.

    Outside the main thread no signal arrives, and the token stays as it is.
    """
    cancel = Cancel()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    thread = threading.Thread(target=_wait_for_signals, args=(read_end, cancel), name="signals", daemon=True)
    thread.start()
    previous_pipe = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, _handle) for number in STOPPING}
    try:
        yield cancel
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_pipe)
        os.write(write_end, _END)
        thread.join()
        os.close(read_end)
        os.close(write_end)
