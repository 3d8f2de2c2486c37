"""The uploads of a bucket whose parts go into sessions: which there are, and when they are wanted.

Those that this process has begun or taken up outlive the store: when credentials are rotated, another store for the
same bucket takes its place in the middle of an upload, and with another private key it could not read the record.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from backupagent.errors import ObjectNotFound
from backupagent.stores.base import PartTag, Upload
from backupagent.stores.gcs_errors import Refusal
from backupagent.stores.gcs_requests import GcsRequests
from backupagent.stores.gcs_sessions import Seal, Session, begin_session
from backupagent.stores.gcs_values import Stored
from backupagent.stores.upload_records import OpenUpload, UploadRecords

_NOT_TOLD = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})


@dataclass(frozen=True)
class _Running:
    """An upload of this process, and its session."""

    opened: OpenUpload
    session: Session


_running: dict[str, _Running] = {}
"""By the id of the upload, which is random."""


class SessionUploads:
    """The sessions of one bucket. Thread-safe.

    Each method may raise one of ``gcs_errors.SDK_ERRORS``.

    Args:
        service: Makes the requests.
        records: Where uploads are written down.
    """

    def __init__(self, service: GcsRequests, records: UploadRecords) -> None:
        self._service = service
        self._records = records
        self._lock = threading.Lock()
        self._wanted: bool | None = None
        self._seal: Seal | None = None

    def wanted(self) -> bool:
        """Whether the bucket keeps what is deleted; asked once. Who may not see that is told no."""
        with self._lock:
            if self._wanted is None:
                try:
                    self._wanted = self._service.keeps_deleted()
                except Refusal as error:
                    if error.status not in _NOT_TOLD:
                        raise
                    self._wanted = False
            return self._wanted

    def begin(self, key: str, part_size: int, metadata: Mapping[str, str]) -> Upload:
        """Begin a session and write it down, if that can be done so that others cannot use it.

        Raises:
            ConfigError: key, metadata or part size cannot be used.
        """
        self._records.check_new(key, part_size, metadata)
        target = begin_session(self._service, key, metadata)
        upload = self._records.begin_session(key, part_size, metadata, self._sealing().close(target))
        opened = self._records.find(upload, "begin upload")
        _running[upload.id] = _Running(opened, Session(self._service, upload, target, fresh=True))
        return upload

    def opened(self, upload: Upload) -> OpenUpload | None:
        """Return an upload of this process."""
        running = _running.get(upload.id)
        return running.opened if running is not None and running.opened.upload == upload else None

    def write(self, opened: OpenUpload, number: int, view: memoryview) -> PartTag:
        """Take a part; see ``Session``."""
        return self._session(opened, "upload part").write(number, view)

    def parts(self, opened: OpenUpload) -> Sequence[PartTag]:
        """List parts; see ``Session``."""
        return self._session(opened, "list parts").parts()

    def complete(self, opened: OpenUpload, size: int, count: int) -> tuple[Stored, int | None]:
        """Make the object visible; see ``Session``."""
        return self._session(opened, "complete upload").complete(size, count)

    def cancel(self, opened: OpenUpload) -> None:
        """Throw a session away. One that others have sealed ends by itself, a week after its begin."""
        session = self._find(opened)
        if session is not None:
            session.cancel()

    def forget(self, upload: Upload) -> None:
        """Let go of a session that has ended."""
        _running.pop(upload.id, None)

    def is_of_use(self, upload: Upload) -> bool:
        """Whether aborting the upload would change anything: it is open, or its record can be removed."""
        if upload.id in _running:
            return True
        session = self._find(self._records.find(upload, "list uploads"))
        return session is None or session.is_open() or not self._service.is_held(self._records.name(upload.id))

    def _session(self, opened: OpenUpload, op: str) -> Session:
        found = self._find(opened)
        if found is None:
            raise ObjectNotFound("its session was begun with other credentials", op=op, key=opened.upload.key)
        return found

    def _find(self, opened: OpenUpload) -> Session | None:
        """Return a session; None when it was sealed by others."""
        running = _running.get(opened.upload.id)
        if running is None and (target := self._sealing().open(opened.session)):
            new = _Running(opened, Session(self._service, opened.upload, target, fresh=False))
            running = _running.setdefault(opened.upload.id, new)
        if running is None:
            return None
        running.session.use(self._service)
        return running.session

    def _sealing(self) -> Seal:
        self._seal = self._seal or Seal(self._service.credentials)
        return self._seal
