"""Who is found on PATH, and who is not: ourselves under the peer's name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backupagent.bench.contender import Contender
from backupagent.bench.peers import ETCDBRCTL_COPY, ETCDBRCTL_RESTORE

# What pip, and what pip does when the path of the interpreter is too long for one line.
OURS = [
    "#!{python}\nimport sys\nfrom backupagent.cli.etcdbrctl import main\nsys.exit(main())\n",
    "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\nfrom backupagent.cli.etcdbrctl import main\n",
]


def program(folder: Path, content: str | bytes, name: str = "etcdbrctl") -> Path:
    folder.mkdir(parents=True)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o755)
    return path


def put_on_path(monkeypatch: pytest.MonkeyPatch, *programs: Path) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(str(path.parent) for path in programs))


@pytest.mark.parametrize("peer", [ETCDBRCTL_RESTORE, ETCDBRCTL_COPY], ids=lambda peer: peer.kind)
@pytest.mark.parametrize("content", OURS)
def test_our_own_etcdbrctl_is_not_the_peer(
    peer: Contender, content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = program(tmp_path / "venv" / "bin", content.format(python=sys.executable))
    put_on_path(monkeypatch, ours)
    assert peer.find() is None
    assert peer.version() == ""
    with pytest.raises(FileNotFoundError):
        peer.command({})
    theirs = program(tmp_path / "bin", b"\x7fELF backupagent is one of its strings")
    put_on_path(monkeypatch, ours, theirs)
    assert peer.find() == str(theirs)


def test_a_link_to_ours_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = program(tmp_path / "venv" / "bin", OURS[0])
    link = tmp_path / "bin" / "etcdbrctl"
    link.parent.mkdir()
    link.symlink_to(ours)
    put_on_path(monkeypatch, link)
    assert ETCDBRCTL_COPY.find() is None


def test_the_first_one_counts_and_other_scripts_are_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = program(tmp_path / "a", '#!/bin/sh\nexec /opt/peer "$@"\n')
    put_on_path(monkeypatch, tmp_path / "nowhere" / "etcdbrctl", first, program(tmp_path / "b", "#!/bin/sh\n"))
    assert ETCDBRCTL_COPY.find() == str(first)


def test_the_entry_point_that_an_installer_makes_is_seen_as_ours(tmp_path: Path) -> None:
    # The template is pip's own, so that a change of it is noticed here.
    imports = "import sys; from pip._vendor.distlib.scripts import ScriptMaker"
    made = f"{imports}; ScriptMaker(None, sys.argv[1]).make(sys.argv[2])"
    words = [sys.executable, "-c", made, str(tmp_path), "etcdbrctl = backupagent.cli.etcdbrctl:main"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "etcdbrctl").read_bytes()
    assert content.startswith(b"#!")
    assert b"backupagent" in content[:4096]


def test_python_is_the_one_that_runs() -> None:
    assert Contender(name="x", kind="copy", program="{python}", arguments=()).find() == sys.executable
