"""``backupagent`` as a child that does not outlive its parent.

``python -m backupagent.server.restore_child restore ...``

Its standard input is a pipe that the parent holds open and never writes to. When the parent is killed, the next one
must be able to restore into the same place.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_parent(pipe: int) -> None:
    """Wait for the end of a pipe, then end this process at once: there is nobody to tell anything to."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, args=(sys.stdin.fileno(),), daemon=True).start()
    runpy.run_module("backupagent", run_name="__main__", alter_sys=True)
