"""Log lines: one line each, both forms, nothing secret."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from backupagent import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("backupagent")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before[0], before[1], before[2]


def one_line(*, as_json: bool, message: str = "saved", fields: dict[str, object] | None = None) -> str:
    stream = io.StringIO()
    logs.log_to(stream, as_json=as_json)
    logging.getLogger("backupagent.server.loop").info(message, extra={"fields": fields or {}})
    (line,) = stream.getvalue().splitlines()
    return line


def test_a_line_has_time_level_place_and_facts() -> None:
    line = one_line(as_json=False, fields={"name": "Incr-1", "bytes": 7})
    assert line.endswith("Z info server.loop: saved name=Incr-1 bytes=7")


def test_the_same_as_json() -> None:
    line = json.loads(one_line(as_json=True, fields={"bytes": 7}))
    assert line["level"], line["message"] == ("info", "saved")
    assert line["logger"] == "server.loop"
    assert line["bytes"] == 7


def test_a_message_of_several_lines_stays_one_line() -> None:
    assert one_line(as_json=False, message="first\nsecond").endswith("first second")


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "Authorization: Bearer hunter2",
        'secretAccessKey: "hunter2"',
        "secretAccessKey=hunter2&x=1",
        "https://me:hunter2@host/path",
        "token: hunter2, next",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    for as_json in (False, True):
        assert "hunter2" not in one_line(as_json=as_json, message=text)


def test_libraries_are_quiet_below_warning() -> None:
    stream = io.StringIO()
    logs.log_to(stream)
    logging.getLogger("somebody.else").info("chatter")
    logging.getLogger("somebody.else").warning("trouble")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue()


def test_a_traceback_is_folded_into_the_line() -> None:
    stream = io.StringIO()
    logs.log_to(stream)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("backupagent.x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "failed | Traceback" in line
    assert "ValueError: invalid literal" in line
