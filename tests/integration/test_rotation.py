"""Keys are rotated while a copy runs: the server takes the new ones only, and the copy goes on."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent import wiring
from backupagent.cancel import Cancel
from backupagent.errors import AccessDenied
from backupagent.progress import Progress
from backupagent.settings import CopySettings
from backupagent.stores.s3 import S3Store
from backupagent.testing.servers import MinioServer

pytestmark = pytest.mark.servers

GOLDEN = Path(__file__).parent.parent / "golden" / "gzip"


def write(folder: Path, server: MinioServer) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in (("accessKeyID", server.access_key), ("secretAccessKey", server.secret_key)):
        (folder / f".{name}").write_text(value)
        (folder / f".{name}").rename(folder / name)


@pytest.mark.parametrize("told", [True, False], ids=["new-files", "old-files"])
def test_keys_that_are_rotated_in_the_middle_of_a_copy(
    server_binary: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    read, reads, lock = S3Store.read_into, [], threading.Lock()
    with MinioServer(binary=server_binary("minio")) as server:
        server.make_bucket("backups")
        write(tmp_path / "keys", server)
        monkeypatch.setenv("SOURCE_AWS_APPLICATION_CREDENTIALS", str(tmp_path / "keys"))
        uri = f"s3://backups/a?endpoint={server.endpoint_url}&region={server.REGION}&path-style=true"
        source = f"{uri}&credentials={tmp_path / 'keys'}"
        wiring.run_copy(CopySettings(source=GOLDEN.as_uri(), target=source), Progress(), Cancel())

        def read_and_rotate(store: S3Store, key, buffer, **options):
            with lock:
                reads.append(key)
                if len(reads) == 3:
                    server.secret_key = "rotated-while-the-copy-runs"
                    server.restart()
                    if told:
                        write(tmp_path / "keys", server)
            return read(store, key, buffer, **options)

        monkeypatch.setattr(S3Store, "read_into", read_and_rotate)
        target = tmp_path / "copy"
        # No credentials in the URI: they are those of SOURCE_AWS_APPLICATION_CREDENTIALS.
        settings = CopySettings(source=uri, target=target.as_uri(), workers=1)
        if told:
            report = wiring.run_copy(settings, Progress(), Cancel())
            original = {path.name: path.read_bytes() for path in (GOLDEN / "v2").iterdir()}
            assert report.copied == len(original)
            assert {path.name: path.read_bytes() for path in (target / "v2").iterdir()} == original
        else:
            with pytest.raises(AccessDenied, match="SignatureDoesNotMatch"):
                wiring.run_copy(settings, Progress(), Cancel())
            assert len(reads) <= 6  # denied, once more, and the end
