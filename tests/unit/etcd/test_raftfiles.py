"""Raft files are byte for byte those of ``etcdutl snapshot restore``."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from backupagent.errors import BackupAgentError, ConfigError, EtcdError, NoSpace
from backupagent.etcd.raftfiles import (
    WAL_SIZE,
    encode_snap,
    encode_wal,
    parse_initial_cluster,
    require_advertised,
    write_raft_files,
)
from backupagent.failpoints import arm
from backupagent.testing.servers import binary_version

GOLDEN = Path(__file__).parents[2] / "golden" / "none" / "v2" / "Full-00000000-00000006-1795400607"
CLUSTERS = {
    1: "default=http://127.0.0.1:2380",
    3: "m1=http://127.0.0.1:35001,m2=http://127.0.0.1:35003,m3=https://10.0.0.3:2380",
    5: (
        "e-4=http://10.0.0.4:1,e<&>2=http://10.0.0.2:1,e-0=http://10.0.0.9:1,e-1=https://10.0.0.1:1,"
        "ключ=http://10.0.0.3:1,ключ=http://10.0.0.3:9,e-0=http://10.0.0.8:2"
    ),
}


@pytest.fixture(scope="module")
def etcdutl(server_binary: Callable[[str], Path]) -> Path:
    return server_binary("etcdutl")


@pytest.mark.parametrize("token", ["etcd-cluster", "tok<&>\u2028-1"])
@pytest.mark.parametrize("members", CLUSTERS)
def test_the_same_bytes_as_etcdutl(etcdutl: Path, tmp_path: Path, members: int, token: str) -> None:
    cluster = parse_initial_cluster(CLUSTERS[members], token=token)
    for member in cluster.members:
        theirs, ours = tmp_path / "theirs" / member.name, tmp_path / "ours" / member.name
        subprocess.run(
            [
                etcdutl, "snapshot", "restore", GOLDEN, f"--data-dir={theirs}", f"--name={member.name}",
                f"--initial-cluster={CLUSTERS[members]}", f"--initial-cluster-token={token}",
                f"--initial-advertise-peer-urls={','.join(member.peer_urls)}",
            ],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        write_raft_files(ours, cluster, member.name)
        names = [sorted(path.name for path in (root / "member").glob("*/*") if path.suffix in {".snap", ".wal"})
                 for root in (theirs, ours)]  # fmt: skip
        assert names[0] == names[1] != []
        for path in (ours / "member").glob("*/*"):
            assert path.read_bytes() == (theirs / path.relative_to(ours)).read_bytes(), path.name
            assert path.stat().st_mode & 0o777 == 0o600
        assert (ours / "member" / "wal").stat().st_mode & 0o777 == 0o700


def test_it_was_compared_with_the_version_that_it_names(etcdutl: Path) -> None:
    assert binary_version(etcdutl)[:2] >= (3, 5)


def test_the_wal_is_preallocated(tmp_path: Path) -> None:
    cluster = parse_initial_cluster(CLUSTERS[1])
    write_raft_files(tmp_path / "data", cluster, "default")

    [wal] = (tmp_path / "data" / "member" / "wal").iterdir()
    assert wal.stat().st_size == WAL_SIZE <= wal.stat().st_blocks * 512
    assert wal.read_bytes().rstrip(b"\0") == encode_wal(cluster, cluster.members[0]).rstrip(b"\0")
    [snap] = (tmp_path / "data" / "member" / "snap").iterdir()
    assert snap.read_bytes() == encode_snap(cluster)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no member is named"),
        (",", "no member is named"),
        ("default", "not of the form name=url"),
        ("=http://h:1", "not of the form"),
        ("a=h:1", "not a peer URL"),
        ("a=ftp://h:1", "not a peer URL"),
        ("a=http://h", "not a peer URL"),
        ("a=http://h:x", "not a peer URL"),
        ("a=http://h:99999", "not a peer URL"),
        ("a=http://[::1:1", "not a peer URL"),
        ("a=http://h:1/path", "nothing may follow the port"),
        ("a=http://h:1,b=http://h:1", "occurs twice"),
    ],
)
def test_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_initial_cluster(text)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="user name") as caught:
        parse_initial_cluster("a=http://me:secret@h:1")
    assert "secret" not in str(caught.value)


def test_a_member_that_is_not_in_the_cluster() -> None:
    with pytest.raises(ConfigError, match="no member 'x', it has m1, m2, m3"):
        parse_initial_cluster(CLUSTERS[3]).member("x")


def test_advertised_urls_must_be_those_of_the_cluster() -> None:
    member = parse_initial_cluster(CLUSTERS[5]).member("e-0")

    require_advertised(member, ["http://10.0.0.9:1", "http://10.0.0.8:2"])
    with pytest.raises(ConfigError, match=r"its advertised peer URLs are http://10\.0\.0\.8:2"):
        require_advertised(member, ["http://10.0.0.8:2"])


def test_members_and_cluster_have_etcds_ids() -> None:
    # Known from etcd's documentation of a single member with default settings.
    cluster = parse_initial_cluster("default=http://localhost:2380")

    assert (cluster.members[0].hex_id, f"{cluster.id:x}") == ("8e9e05c52164694d", "cdf818194e3a8c32")


def test_an_existing_wal_is_not_overwritten(tmp_path: Path) -> None:
    cluster = parse_initial_cluster(CLUSTERS[1])
    write_raft_files(tmp_path, cluster, "default")

    with pytest.raises(EtcdError, match="exists"):
        write_raft_files(tmp_path, cluster, "default")


def test_a_full_disk_is_no_space(tmp_path: Path) -> None:
    arm("restore.raft=nospace")

    with pytest.raises(NoSpace) as caught:
        write_raft_files(tmp_path, parse_initial_cluster(CLUSTERS[1]), "default")
    assert isinstance(caught.value, BackupAgentError)
