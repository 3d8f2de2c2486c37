"""The image without a container engine: the Dockerfile is read, and what its build stage runs is run in a folder."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
NONROOT = "65532:65532"
BUILD_LIMIT_S = 110


@dataclass
class Stage:
    """One stage of the image.

    Attributes:
        base: What it begins from.
        name: Its name, or empty.
        steps: Instruction and the rest of its line, in order.
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]

    def one(self, instruction: str) -> str:
        (rest,) = self.all(instruction)
        return rest

    @property
    def environment(self) -> dict[str, str]:
        pairs = (word.partition("=") for rest in self.all("ENV") for word in shlex.split(rest))
        return {name: value for name, _, value in pairs}


def read_dockerfile() -> tuple[dict[str, str], list[Stage]]:
    """Return the arguments before the first stage, and the stages."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(str.strip, re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name))
        elif not stages:
            assert instruction == "ARG", line
            arguments |= dict([rest.split("=", 1)])
        else:
            stages[-1].steps.append((instruction, rest))
    return arguments, stages


ARGUMENTS, (BUILD, FINAL) = read_dockerfile()


# ---- what it says


def test_both_stages_begin_from_one_base_that_can_be_pinned() -> None:
    assert ARGUMENTS == {"BASE": "python:3.13-slim"}  # no host, and no tag that moves from Python to Python
    assert (BUILD.base, BUILD.name) == ("${BASE}", "build")
    assert (FINAL.base, FINAL.name) == ("${BASE}", "")


def test_the_final_stage_runs_nothing_and_takes_only_what_was_built() -> None:
    assert {name for name, _ in FINAL.steps} == {"LABEL", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT"}
    assert all(step.startswith("--from=build ") for step in FINAL.all("COPY"))


def test_it_runs_as_a_user_without_rights_known_by_number() -> None:
    assert FINAL.one("USER") == NONROOT  # runAsNonRoot needs a number
    steps = [name for name, _ in FINAL.steps]
    assert steps.index("USER") > max(place for place, name in enumerate(steps) if name == "COPY")
    (home,) = [step for step in FINAL.all("COPY") if step.endswith(" /home/nonroot")]
    assert f"--chown={NONROOT}" in home.split()
    # The program itself is not its user's to change.
    assert [step for step in FINAL.all("COPY") if "--chown" in step] == [home]


def test_druids_pods_bring_arguments_only() -> None:
    (entry,) = json.loads(FINAL.one("ENTRYPOINT"))  # the list's form needs no shell
    assert Path(entry).name == "etcdbrctl"
    assert str(Path(entry).parent) == FINAL.environment["PATH"].split(":")[0]
    assert FINAL.all("CMD") == []


def test_its_environment_suits_a_root_that_is_read_only() -> None:
    environment = FINAL.environment
    assert environment["HOME"] == FINAL.one("WORKDIR") == "/home/nonroot"
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_all_that_is_fetched_is_pinned_by_its_hash() -> None:
    for run in BUILD.all("RUN"):
        for command in run.split(" && "):
            if re.search(r"-m pip .*\b(install|wheel)\b", command):
                assert "--no-deps" in command
                assert ("--require-hashes" in command) != ("--no-index" in command), command
            if " wheel " in command:
                assert "--no-build-isolation" in command, command  # else pip fetches the newest setuptools
    for name in ("base", "build"):
        pins = [line for line in (ROOT / "requirements" / f"{name}.txt").read_text().splitlines() if line[0].isalnum()]
        assert pins
        assert all(re.match(r"[\w.-]+==\S+", pin) for pin in pins)


def test_what_builds_the_image_is_what_builds_the_checkout() -> None:
    assert (ROOT / "requirements" / "build.txt").read_text() in (ROOT / "requirements" / "demo.txt").read_text()


def test_it_holds_no_secret_and_no_host() -> None:
    text = DOCKERFILE.read_text()
    assert not re.search(r"(?i)password|passwd|token|secret|api_?key|index-url|https?://|:latest", text)
    assert not re.search(r"^(ADD|VOLUME)\b", text, re.MULTILINE)


def test_the_builder_gets_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {source for step in BUILD.all("COPY") for source in step.split()[:-1]}
    assert allowed == copied
    assert {"**/__pycache__", "**/*.pyc"} <= set(rules[1:])


# ---- what it does


def run_build(folder: Path) -> None:
    """Do what the build stage does, with ``folder`` in the place of the machine's root."""
    source = folder / "src"
    # The cache of wheels is a kindness to the registry; it changes nothing, since hashes are checked all the same.
    environment = os.environ | BUILD.environment | {"PIP_NO_CACHE_DIR": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.defpath}"
    for instruction, rest in BUILD.steps:
        if instruction == "COPY":
            *names, target = rest.split()
            for name in names:
                copy(ROOT / name, source / target)
        elif instruction == "RUN":
            script = below(folder, rest)
            done = subprocess.run(
                ["sh", "-ec", script], cwd=source, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def below(folder: Path, text: str) -> str:
    return text.replace("/opt/", f"{folder}/opt/")


@pytest.mark.servers  # needs a package registry
@pytest.mark.timeout(BUILD_LIMIT_S)
def test_the_image_has_both_programs_and_needs_nothing_else(tmp_path: Path) -> None:
    run_build(tmp_path)
    for step in FINAL.all("COPY"):
        assert Path(below(tmp_path, step).split()[-2]).is_dir(), step
    environment = {name: below(tmp_path, value) for name, value in FINAL.environment.items()}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd="/", env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (entry,) = json.loads(below(tmp_path, FINAL.one("ENTRYPOINT")))
    assert Path(entry).read_text().startswith(f"#!{Path(entry).parent}/python")
    assert run(entry, "--version").startswith("etcdbrctl Version: backupagent ")
    assert "--source-storage-provider" in run(entry, "copy", "--help")
    found = shutil.which("backupagent", path=environment["PATH"])
    assert found == str(Path(entry).with_name("backupagent"))  # command: [backupagent, controller]
    assert "--seed-kubeconfig" in run(found, "controller", "--help")

    python = str(Path(entry).with_name("python"))
    imports = "import backupagent.server.run, backupagent.controller.run, backupagent.stores.opening_gcs, boto3, isal"
    assert run(python, "-I", "-c", f"{imports}; print(backupagent.__file__)").startswith(str(tmp_path))
    modules = {path.name.partition("-")[0] for path in tmp_path.glob("opt/backupagent/lib/*/site-packages/*")}
    assert "aiohttp" in modules
    assert modules & {"pip", "setuptools", "pytest", "tests"} == set()
