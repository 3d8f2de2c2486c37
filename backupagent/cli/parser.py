"""The command line as typer sees it: commands, flags and help pages, made from the table of commands.

Typer splits the arguments; values are read by ``options.bind``, since typer's own conversion would import
pydantic (65 ms of a start of 150 ms, measured with typer 0.29.2, 2026-11) and knows neither sizes nor durations.
"""

import inspect
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from backupagent import __version__
from backupagent.cli.commands import COMMANDS, Command
from backupagent.cli.options import VARIABLE_PREFIX, Option, bind, options_of
from backupagent.errors import ConfigError
from backupagent.settings import ReportingSettings

PROGRAM = "backupagent"

HELP = """Takes full and delta snapshots of an etcd, copies them between buckets of any provider, restores them,
and proves that the new etcd equals the old one."""

EPILOG = f"""A store is one URI: file:///dir/prefix or s3://bucket/prefix?endpoint=http://host:port, with
&region=NAME, &path-style=true and &credentials=PATH as needed. Every option can also be set in the environment as
{VARIABLE_PREFIX}<OPTION>, e.g. {VARIABLE_PREFIX}PART_SIZE for --part-size. Exit codes are listed in
docs/errors.md."""

HELP_COLUMN = 28
"""Columns at most for the names of options; a longer name has a line of its own."""

_CONTEXT = {"help_option_names": ["--help", "-h"], "max_content_width": 100}


@dataclass(frozen=True)
class Invocation:
    """A command line that was understood.

    Attributes:
        command: The command.
        settings: Its settings, an object of ``command.settings``.
        reporting: How it tells what it did.
    """

    command: Command
    settings: Any
    reporting: ReportingSettings


class _Command(TyperCommand):
    """A command whose values stay text, and whose help page has one section per theme."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's context class is private
        if any(arg in ctx.help_option_names for arg in args):
            return super().parse_args(ctx, args)
        given, rest, _order = self.make_parser(ctx).parse_args(args=list(args))
        if rest:
            message = f"unexpected argument {rest[0]!r}"
            raise ConfigError(message, hint=_hint(self.name or ""))
        ctx.params = {param.name: given.get(param.name) for param in self.params}
        return []

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        command = COMMANDS[self.name or ""]
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in _options(command):
            title = "Options" if option.theme is command.settings else option.theme.__name__.removesuffix("Settings")
            if not option.hidden:
                sections.setdefault(title, []).append(_help_row(option))
        sections["Help"] = [(", ".join(ctx.help_option_names), "show this page")]
        width = max(len(usage) for rows in sections.values() for usage, _help in rows if len(usage) <= HELP_COLUMN)
        for title, rows in sections.items():
            with formatter.section(title):
                # Padded, so that the texts of all sections begin in one column.
                formatter.write_dl([(usage.ljust(width), text) for usage, text in rows], col_max=width)


def _options(command: Command) -> tuple[Option, ...]:
    return options_of(command.settings) + (options_of(ReportingSettings) if command.reports else ())


def _help_row(option: Option) -> tuple[str, str]:
    usage = ", ".join(flag for flag in (option.short, option.flag) if flag) + f" {option.metavar}"
    if option.positional:
        usage = option.flag
    elif option.switch:
        usage = option.flag.replace("--", "--[no-]") if option.default_text else option.flag
    text = option.help
    if option.positional:
        text += f": {option.metavar}"
    if option.required:
        text += " [required]"
    return usage, f"{text} [default: {option.default_text}]" if option.default_text else text


def _hint(command: str) -> str:
    return f"see `{PROGRAM} {command} --help`" if command else f"see `{PROGRAM} --help`"


def _parameter(option: Option) -> inspect.Parameter:
    default: Any = None
    if option.positional:
        info: Any = typer.Argument(metavar=option.flag)
        default = inspect.Parameter.empty if option.required else None
    elif option.switch:
        info = typer.Option(f"{option.flag}/--no-{option.flag.removeprefix('--')}")
    else:
        info = typer.Option(*(flag for flag in (option.flag, option.short) if flag))
    value_type: Any = bool | None if option.switch else str | None
    annotation = Annotated[value_type, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _add(app: typer.Typer, command: Command) -> None:
    def invoke(**given: str | bool | None) -> Invocation:
        try:
            values: Any = bind(command.settings, given, os.environ)
            reporting = bind(ReportingSettings, given, os.environ) if command.reports else ReportingSettings()
        except ConfigError as error:
            error.hint = _hint(command.name)
            raise
        return Invocation(command, values, reporting)

    parameters = [_parameter(option) for option in _options(command)]
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    invoke.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(
        command.name,
        cls=_Command,
        help=command.help,
        epilog=f"\b\nExample:\n  {command.example}",
        context_settings=_CONTEXT,
    )(invoke)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's protocol of a callback
    if wanted:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _program() -> typer.Typer:
    app = typer.Typer(help=HELP, epilog=EPILOG, add_completion=False, rich_markup_mode=None, context_settings=_CONTEXT)

    @app.callback()
    def options(
        *,
        version: Annotated[
            bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None: ...

    for command in COMMANDS.values():
        _add(app, command)
    return app


def _single(command: Command) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    _add(app, command)
    return app


def parse(arguments: Sequence[str]) -> Invocation | None:
    """Understand a command line.

    Args:
        arguments: At least one.

    Returns:
        What to do, or None when a help page or the version was asked for and printed.

    Raises:
        ConfigError: the command line or the environment is wrong; nothing was attempted.
    """
    name = arguments[0] if arguments[0] in COMMANDS else ""
    # The usual case goes past the group of commands: its options would be converted by typer, and so by pydantic.
    app, program, rest = (
        (_single(COMMANDS[name]), f"{PROGRAM} {name}", arguments[1:]) if name else (_program(), PROGRAM, arguments)
    )
    try:
        answer = typer.main.get_command(app).main(list(rest), prog_name=program, standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message().rstrip(".")
        raise ConfigError(message[:1].lower() + message[1:], hint=_hint(name)) from error
    return answer if isinstance(answer, Invocation) else None
