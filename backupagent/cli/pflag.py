"""The rules of spf13/pflag, by which the peer reads a command line: flags as data, and their texts as values.

Source of the rules: spf13/pflag v1.0 (flag.go, int.go, uint.go, bool.go, string_slice.go), and the peer when run.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from backupagent.errors import BackupAgentError, ConfigError
from backupagent.units import parse_duration


class Kind(Enum):
    """How the text of a flag is read; the value is pflag's name of the type."""

    TEXT = "string"
    NUMBER = "int"
    COUNT = "uint"
    BOOL = "bool"
    DURATION = "duration"
    LIST = "strings"
    REPEATED = "stringArray"


class Use(Enum):
    """What a flag means here."""

    HONOURED = "honoured"
    IDLE = "accepted, without meaning here"
    REFUSED = "refused when it asks for something"


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: Without dashes.
        kind: How its text is read.
        default: Its default, as text.
        use: What it means here.
        note: Why it has no meaning, or why it is refused.
        short: Its letter, or empty.
    """

    name: str
    kind: Kind
    default: str
    use: Use = Use.HONOURED
    note: str = ""
    short: str = ""


SEE_PAGE = "see docs/etcdbrctl.md for what is honoured, accepted and refused"


class UsageError(BackupAgentError):
    """The command line is wrong; said as the peer says it, with exit status 1.

    Args:
        message: What is wrong.
    """

    default_hint = SEE_PAGE

    def __init__(self, message: str) -> None:
        super().__init__(message)


HELP = Flag("help", Kind.BOOL, "false", short="h")
"""Every command has it."""

_TRUE, _FALSE = {"1", "t", "T", "TRUE", "true", "True"}, {"0", "f", "F", "FALSE", "false", "False"}
_OCTAL = re.compile(r"[+-]?0[0-7_]+")
_NUMBER = re.compile(r"[+-]?[0-9][0-9A-Za-z_]*", re.ASCII)
_BITS = 64


@dataclass(frozen=True)
class Given:
    """The flags of one command line.

    Attributes:
        flags: All flags of the command, by name.
        texts: What was given, by name; several texts for a flag that may be repeated.
    """

    flags: Mapping[str, Flag]
    texts: Mapping[str, tuple[str, ...]]

    def named(self, name: str) -> bool:
        """Whether a flag stands on the command line."""
        return name in self.texts

    def text(self, name: str) -> str:
        """Return a flag's text; the last one counts."""
        return self.texts[name][-1] if name in self.texts else self.flags[name].default

    def number(self, name: str) -> int:
        """Return a whole number."""
        return _number(self.text(name))

    def flag(self, name: str) -> bool:
        """Return a truth."""
        return self.text(name) in _TRUE

    def seconds(self, name: str) -> float:
        """Return a duration in seconds."""
        return parse_duration(self.text(name))

    def list(self, name: str) -> tuple[str, ...]:
        """Return the elements of a list; what is given replaces the default, and adds up when it is given again."""
        texts = self.texts.get(name, (self.flags[name].default,))
        separate = self.flags[name].kind is Kind.LIST
        return tuple(part for text in texts for part in (_elements(text) if separate else [text]) if part)


def read_flags(flags: Sequence[Flag], arguments: Sequence[str]) -> Given:
    """Read a command's arguments.

    ``--flag=value``, ``--flag value``, ``-f value``, ``-fvalue``, ``-f=value``; a truth needs no value and takes one
    only after ``=``; ``--`` ends the flags. A word that belongs to no flag is refused, where the peer passes over it:
    in ``--wait-for-final-snapshot false`` that word asked for the opposite of what would be done.

    Raises:
        UsageError: a flag is unknown, lacks its value, or has one that cannot be read.
        ConfigError: a flag asks for what is refused here.
    """
    by_name = {flag.name: flag for flag in (*flags, HELP)}
    by_letter = {flag.short: flag for flag in by_name.values() if flag.short}
    texts: dict[str, tuple[str, ...]] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            _refuse_word(rest)
        elif word.startswith("--"):
            flag, value = _long(word, rest, by_name)
            texts[flag.name] = (*texts.get(flag.name, ()), value)
        elif word.startswith("-") and word != "-":
            for flag, value in _short(word, rest, by_letter):
                texts[flag.name] = (*texts.get(flag.name, ()), value)
        else:
            _refuse_word([word])
    given = Given(by_name, texts)
    _refuse(given)
    return given


def _refuse_word(words: Sequence[str]) -> None:
    if words:
        raise UsageError(f'unexpected argument "{words[0]}"; a bool takes its value after "=" only')


def _long(word: str, rest: list[str], by_name: Mapping[str, Flag]) -> tuple[Flag, str]:
    """Read one ``--flag``, and its value from the rest when it stands there."""
    name, equals, value = word[2:].partition("=")
    if not name or name.startswith("-"):
        raise UsageError(f"bad flag syntax: {word}")
    if name not in by_name:
        raise UsageError(f"unknown flag: --{name}")
    flag = by_name[name]
    if not equals and flag.kind is Kind.BOOL:
        value = "true"
    elif not equals:
        if not rest:
            raise UsageError(f"flag needs an argument: --{name}")
        value = rest.pop(0)
    _check(flag, value)
    return flag, value


def _short(word: str, rest: list[str], by_letter: Mapping[str, Flag]) -> list[tuple[Flag, str]]:
    """Read one word of letters: those of bools may stand together, another one's value is what follows it."""
    found = []
    letters = word[1:]
    while letters:
        letter, behind = letters[0], letters[1:]
        if letter not in by_letter:
            raise UsageError(f"unknown shorthand flag: '{letter}' in -{letters}")
        flag = by_letter[letter]
        if behind.startswith("=") and len(behind) > 1:
            value, behind = behind[1:], ""
        elif flag.kind is Kind.BOOL:
            value = "true"
        elif behind:
            value, behind = behind, ""
        elif rest:
            value = rest.pop(0)
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in -{letters}")
        _check(flag, value)
        found.append((flag, value))
        letters = behind
    return found


def _check(flag: Flag, value: str) -> None:
    try:
        match flag.kind:
            case Kind.NUMBER | Kind.COUNT:
                _number(value, signed=flag.kind is Kind.NUMBER)
            case Kind.DURATION:
                parse_duration(value)
            case Kind.LIST:
                _elements(value)
            case Kind.BOOL if value not in _TRUE | _FALSE:
                raise UsageError(f"{_invalid(flag, value)}: not a truth value")
    except ValueError as error:
        raise UsageError(f"{_invalid(flag, value)}: {error}") from error


def _invalid(flag: Flag, value: str) -> str:
    letter = f"-{flag.short}, " if flag.short else ""
    return f'invalid argument "{value}" for "{letter}--{flag.name}" flag'


def _number(text: str, *, signed: bool = True) -> int:
    """Read a number as Go's strconv does with base 0.

    Raises:
        ValueError: it is none, or too large.
    """
    if not _NUMBER.fullmatch(text) or (not signed and text[0] in "+-"):
        message = f"{text!r} is not a {'whole' if signed else 'positive whole'} number"
        raise ValueError(message)
    number = int(text, 8 if _OCTAL.fullmatch(text) else 0)
    if not -(1 << _BITS - 1) <= number < 1 << (_BITS - signed):
        message = f"{text!r} does not fit into {_BITS} bits"
        raise ValueError(message)
    return number


def _elements(text: str) -> list[str]:
    """Split a list as a line of CSV.

    Raises:
        ValueError: a quote is not closed.
    """
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _refuse(given: Given) -> None:
    """Refuse what asks for something that is not done here, unless help is asked for."""
    for name in given.texts:
        flag, text = given.flags[name], given.text(name)
        asks = text in _TRUE if flag.kind is Kind.BOOL else text != flag.default
        if flag.use is Use.REFUSED and asks and not given.flag(HELP.name):
            raise ConfigError(f"--{flag.name} is refused: {flag.note}", hint=SEE_PAGE)
