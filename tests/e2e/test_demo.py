"""The demo says EQUAL, with directories and with MinIO, and DIFFERENT when the new etcd is not the old one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "backupagent", "demo", "--objects", "400", *options]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("store", ["dir", "minio"])
def test_demo_ends_with_equal(store: str, server_binary: Callable[[str], Path], tmp_path: Path) -> None:
    server_binary("etcd-3.7")
    if store == "minio":
        server_binary("minio")
    done = demo("--store", store, "--keep", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[-1] == "EQUAL"
    source, new = (line.split()[2:] for line in lines if line.startswith(("source etcd", "new etcd")))
    assert source == new
    assert {"full", "delta", "final", "copy", "restore"} <= {line.split()[0] for line in lines if line}


def test_demo_of_different_etcds_says_so(
    server_binary: Callable[[str], Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backupagent.bench import demo as module
    from backupagent.cancel import Cancel

    server_binary("etcd-3.7")
    original = module.EtcdServer

    def meddled(*args: object, **options: object) -> object:
        server = original(*args, **options)  # type: ignore[arg-type]
        if "restored" in str(options["data_dir"]):
            start = server.start

            def start_and_write(*, wait: bool = True) -> None:
                start(wait=wait)
                with module.EtcdClient.open(module.EtcdAccess(endpoints=(server.url,))) as client:
                    client.etcd3.put("meddled", "with")

            server.start = start_and_write  # type: ignore[method-assign]
        return server

    monkeypatch.setattr(module, "EtcdServer", meddled)
    assert module.run_demo(store="dir", objects=200, keep=None, cancel=Cancel()) == 1
    assert capsys.readouterr().out.strip().endswith("DIFFERENT")
