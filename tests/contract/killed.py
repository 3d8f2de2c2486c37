"""A process that begins an upload and is killed in the middle of it."""

import os
import subprocess
import sys

PROGRAM = """
import os, signal, sys
from backupagent.stores import open_store, parse_location
store = open_store(parse_location(sys.argv[1]))
upload = store.begin_upload("p/v2/big", part_size=4, metadata={"kind": "full"})
store.upload_part(upload, 2, b"old2")
for number, content in ((1, b"one1"), (2, b"two2")):
    store.upload_part(upload, number, content)
os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_an_upload(uri: str) -> None:
    """Leave parts 1 and 2 of three of ``p/v2/big``, of 4 bytes each; part 2 was sent twice."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
