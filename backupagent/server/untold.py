"""A restore that Kubernetes has not heard of yet, remembered beside the data directory.

Whoever waits for it would wait for ever if the sidecar were killed between the restore and the Lease.
"""

import logging
from pathlib import Path

from backupagent.errors import BackupAgentError
from backupagent.model.restored import MAX_SIZE, Restored, decode_restored, encode_restored

_log = logging.getLogger(__name__)


class UntoldRestore:
    """A file beside the data directory. Losing it is no reason to fail: what goes wrong is logged.

    Args:
        data_dir: The data directory; the file has its name with ``.restored`` behind it.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir.with_name(f"{data_dir.name}.restored")

    def remember(self, restored: Restored) -> None:
        """Write it down."""
        half_made = self._path.with_name(f"{self._path.name}.part")
        try:
            half_made.write_text(encode_restored(restored), encoding="utf-8")
            half_made.replace(self._path)
        except OSError as error:
            _log.warning("a restore is not remembered: %s", error)

    def recall(self) -> Restored | None:
        """Return what was written down; None when there is nothing that can be read."""
        try:
            with self._path.open(encoding="utf-8") as file:
                return decode_restored(file.read(MAX_SIZE + 1), str(self._path))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, BackupAgentError) as error:
            _log.warning("a restore that was not told is lost: %s", error)
            return None

    def forget(self, restored: Restored) -> None:
        """Remove it, unless it is another one by now."""
        if self.recall() == restored:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                _log.warning("a restore will be told once more: %s", error)
