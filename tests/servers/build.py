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
library. The user's settings of Go, npm and pip are honoured: proxies, registries, caches.
"""

import argparse
import os
import signal
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from builders import BUILDERS, RECIPES, BuildError, Recipe, only_one, run, say


def load_recipes(root: Path) -> dict[str, Recipe]:
    """Read every recipe below ``root``, by name."""
    recipes = {}
    for file in sorted(root.glob("*/recipe.toml")):
        recipes[file.parent.name] = Recipe(file.parent, tomllib.loads(file.read_text("utf-8")))
    return recipes


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
