"""Where one test works: a source, a target and a data directory of its own."""

from pathlib import Path

from command import Ended, backupagent


class Place:
    """Directories, and the commands between them.

    Args:
        root: A directory of its own.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.source = root / "source"
        self.target = root / "target"
        self.data_dir = root / "new.etcd"

    def copy(self, *options: str, armed: str = "") -> Ended:
        uris = ("--source", self.source.as_uri(), "--target", self.target.as_uri())
        return backupagent("copy", *uris, *options, armed=armed)

    def restore(self, *options: str, armed: str = "") -> Ended:
        place = ("--store", self.source.as_uri(), "--data-dir", self.data_dir)
        return backupagent("restore", *place, *options, armed=armed)

    def verify(self, store: Path | None = None) -> Ended:
        return backupagent("verify", "--store", (store or self.source).as_uri())

    def assert_nothing_restored(self) -> None:
        assert [path.name for path in self.root.glob(f"{self.data_dir.name}*")] == []
