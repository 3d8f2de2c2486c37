"""The driver that builds the servers, and Go's codecs, which it builds."""

import concurrent.futures
import hashlib
import importlib.util
import json
import subprocess
import sys
import threading
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

BUILD = Path(__file__).with_name("build.py")


def script(path: Path, answer: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def driver() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("servers_build", BUILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["servers_build"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recipe_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes" / "thing"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('builder = "fake"\n')
    return folder


def recipe_of(driver: types.ModuleType, folder: Path) -> object:
    return driver.load_recipes(folder.parent)[folder.name]


def test_a_server_is_built_once_even_by_concurrent_builds(
    driver: types.ModuleType, recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def fake(recipe: object, cache: Path, work: Path, out: Path) -> None:
        built.append(work)
        threading.Event().wait(0.2)
        script(out / "thing", "1.0")

    monkeypatch.setitem(driver.BUILDERS, "fake", fake)
    recipe = recipe_of(driver, recipe_folder)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        binaries = set(pool.map(lambda _: driver.build(recipe, tmp_path / "cache"), range(4)))
    assert len(built) == 1
    assert [path.parent.parent for path in binaries] == [tmp_path / "cache"]
    driver.link(next(iter(binaries)), tmp_path / "bin")
    assert subprocess.check_output([tmp_path / "bin" / "thing"]) == b"1.0\n"
    (recipe_folder / "more").write_text("changed")
    driver.link(driver.build(recipe_of(driver, recipe_folder), tmp_path / "cache"), tmp_path / "bin")
    assert len(built) == 2
    assert (tmp_path / "bin" / "thing").resolve() not in binaries


@pytest.mark.parametrize("answer", ["exit 3", None])
def test_a_failed_build_leaves_nothing_that_counts(
    driver: types.ModuleType,
    recipe_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str | None,
) -> None:
    def fake(recipe: object, cache: Path, work: Path, out: Path) -> None:
        if answer is None:
            raise driver.BuildError("no network")
        script(out / "thing", "x").write_text(f"#!/bin/sh\n{answer}\n")  # fails its check

    monkeypatch.setitem(driver.BUILDERS, "fake", fake)
    cache, links = tmp_path / "cache", tmp_path / "bin"
    recipe = recipe_of(driver, recipe_folder)
    cache.mkdir()
    leftover = cache / f"{recipe.digest()}.tmp-killed"
    leftover.mkdir()
    assert driver.build_all([recipe], cache, links) == {"thing"}
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert not links.exists()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "no network" in said[1] or "exited with 3" in said[1]


def test_the_hash_covers_the_names_and_contents_of_the_folder(driver: types.ModuleType, recipe_folder: Path) -> None:
    digests = {recipe_of(driver, recipe_folder).digest()}
    (recipe_folder / "main.go").write_text("a")
    digests.add(recipe_of(driver, recipe_folder).digest())
    (recipe_folder / "main.go").write_text("b")
    digests.add(recipe_of(driver, recipe_folder).digest())
    (recipe_folder / "main.go").rename(recipe_folder / "other.go")
    digests.add(recipe_of(driver, recipe_folder).digest())
    digests.add(recipe_of(driver, recipe_folder.rename(recipe_folder.with_name("renamed"))).digest())
    assert len(digests) == 5


def test_every_recipe_has_a_builder_and_pins_its_version(driver: types.ModuleType) -> None:
    recipes = driver.load_recipes(BUILD.parent)
    assert {"etcd-3.4", "etcd-3.5", "etcd-3.6", "etcd-3.7", "gointerop", "minio"} <= set(recipes)
    assert {"azurite-blob", "fake-gcs-server", "toxiproxy"} <= set(recipes)
    for recipe in recipes.values():
        assert recipe.text("builder") in driver.BUILDERS
        pins = [recipe.folder / name for name in ("go.mod", "requirements.txt", "package-lock.json")]
        assert "version" in recipe.fields or any(pin.is_file() for pin in pins)


def test_locks_pin_by_hash_and_name_no_address() -> None:
    [lock] = BUILD.parent.glob("*/package-lock.json")
    packages = json.loads(lock.read_text())["packages"]
    wanted = json.loads(lock.with_name("package.json").read_text())["dependencies"]
    assert packages.pop("")["dependencies"] == wanted
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version
    [requirements] = BUILD.parent.glob("*/requirements.txt")
    assert requirements.read_text().count("--hash=sha256:") == 2
    assert "://" not in requirements.read_text()


def a_wheel(folder: Path) -> str:
    """Make a wheel with one program in it, and return its sha256."""
    files = {
        "thing/bin/thing-amd64": "#!/bin/sh\necho from the wheel\n",
        "thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, "thing-1.0.dist-info/RECORD"])
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in {**files, "thing-1.0.dist-info/RECORD": record}.items():
            wheel.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_program_out_of_a_wheel_whose_hash_is_pinned(
    driver: types.ModuleType, recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = a_wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (recipe_folder / "recipe.toml").write_text('builder = "wheel"\nfile = "thing/bin/thing-{machine}"\n')
    (recipe_folder / "requirements.txt").write_text(f"thing==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(driver.BuildError):
        driver.build(recipe_of(driver, recipe_folder), tmp_path / "cache")
    (recipe_folder / "requirements.txt").write_text(f"thing==1.0 --hash=sha256:{digest}\n")
    binary = driver.build(recipe_of(driver, recipe_folder), tmp_path / "cache")
    assert subprocess.check_output([binary]) == b"from the wheel\n"


def test_a_program_of_npm_starts_from_its_link_with_the_node_that_installed_it(
    driver: types.ModuleType, recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, client = tmp_path / "bin" / "node", tmp_path / "bin" / "npm"
    script(node, "v24.19.0").write_text('#!/bin/sh\n[ "$1" = --version ] && echo v24.19.0 && exit\nexec sh "$@"\n')
    script(client, "")
    client.write_text('#!/bin/sh\nmkdir scripts && echo "echo started: \\$* && echo $* > said" > "scripts/main it"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    (recipe_folder / "recipe.toml").write_text('builder = "npm"\nscript = "scripts/main it"\n')
    for name in ("package.json", "package-lock.json"):
        (recipe_folder / name).write_text("{}")
    driver.link(driver.build(recipe_of(driver, recipe_folder), tmp_path / "cache"), tmp_path / "links")
    assert subprocess.check_output([tmp_path / "links" / "thing", "a b"], cwd=tmp_path) == b"started: a b\n"
    assert (tmp_path / "said").read_text() == "ci --ignore-scripts --no-audit --no-fund\n"


@pytest.mark.parametrize(
    ("answer", "enough"),
    [("v22.0.0", True), ("v24.19.0", True), ("v20.20.2", False), ("", False), ("go version go1.26.1 linux", True)],
)
def test_toolchains_that_are_too_old_are_left_alone(
    driver: types.ModuleType, tmp_path: Path, answer: str, enough: bool
) -> None:
    minimum = (1, 26) if "go" in answer else (22, 0)
    assert sys.modules["builders"].is_new_enough([script(tmp_path / "node", answer), "--version"], minimum) is enough


@pytest.mark.parametrize("codec", ["gzip", "zlib", "lzw", "none"])
def test_gointerop_reads_what_it_wrote(codec: str, tmp_path: Path, server_binary: Callable[[str], Path]) -> None:
    program = server_binary("gointerop")
    plain = tmp_path / "plain"
    plain.write_bytes(BUILD.read_bytes() * 5)
    packed = tmp_path / "packed"
    packed.write_bytes(subprocess.check_output([program, plain, codec, "-c"]))
    assert (packed.stat().st_size < plain.stat().st_size) is (codec != "none")
    assert subprocess.check_output([program, packed, codec]) == plain.read_bytes()
