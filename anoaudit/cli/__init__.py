"""The command line: one file per command, each parses, calls the api, prints. No logic, no torch.

Exit codes: 0 pass · 1 a --fail-on clause fired · 2 usage, configuration, malformed labels · 3 could not audit · 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import typer

from anoaudit import __version__
from anoaudit.cli import contaminate, doctor, fit, inspect, methods, report, score
from anoaudit.cli.shared import InterruptionError
from anoaudit.cli.streams import drop, heedless
from anoaudit.errors import AnoauditError, UsageError

app = typer.Typer(
    name="anoaudit",
    help="Audit whole data sets for anomalies: train a detector on the contaminated data itself, rank every item.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (fit, score, contaminate, report, methods, inspect, doctor):
    app.command(name=module.__name__.rpartition(".")[2])(module.command)

# typer's own usage errors; their base is click's, wherever this version of typer keeps it.
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
DEBUG = "--debug"


def _version(show: bool) -> None:
    if show:
        print(f"anoaudit {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
    debug: bool = typer.Option(False, DEBUG, help="Show tracebacks."),
) -> None:
    """Audit whole data sets for anomalies: train a detector on the contaminated data itself, rank every item."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit; never with a traceback, unless --debug asks for it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG in given
    given = [DEBUG, *(item for item in given if item != DEBUG)] if debug else given
    with heedless():
        sys.exit(_run(given, debug))


def _run(arguments: list[str], debug: bool) -> int:
    try:
        result = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
        if result == 130:  # typer turns Ctrl-C into this code without a word
            _say("interrupted")
        return result if isinstance(result, int) else 0
    except InterruptionError as stop:
        _say("interrupted", str(stop))
        return 130
    except AnoauditError as error:
        if debug:
            raise
        _say(f"error: {error.message}", error.hint)
        return error.exit_code
    except _CLICK_ERROR as error:
        return _misused(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    except BrokenPipeError:
        return _quiet_pipe(0)
    except SystemExit as stop:
        # typer answers a closed pipe with exit code 1, which here means that a clause fired.
        if isinstance(stop.__context__, BrokenPipeError):
            return _quiet_pipe(0)
        raise
    except OSError as error:
        if debug:
            raise
        _say(
            f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
            "check space and permissions",
        )
        return 3
    except BaseException as error:  # polars' Rust panics are no Exception; Python's own exit code 1 must not leak
        if debug or isinstance(error, SystemExit):
            raise
        line = (str(error).splitlines() or [""])[0][:300]
        _say(f"error: {type(error).__name__}: {line}", "this is a bug; run again with --debug and report it")
        return 3


def _misused(error: Any, arguments: Sequence[str]) -> int:
    """typer's errors in the words and the form of our own."""
    error.message = error.message.removeprefix("Value error, ")  # pydantic's words before typer's
    text = re.sub(r"Input should be a valid (number|integer).*", _kind_of_number, error.format_message()).rstrip(".")
    if not text:  # no arguments at all: the help has been shown
        return 2
    named = {command.name for command in app.registered_commands}
    words = ["anoaudit", *(word for word in arguments[:2] if word in named), "--help"]
    shown = UsageError(text[:1].lower() + text[1:], f"see {' '.join(words)}")
    _say(f"error: {shown.message}", shown.hint)
    return 2


def _kind_of_number(match: re.Match[str]) -> str:
    """Instead of pydantic's sentence."""
    return "it is no whole number" if match[1] == "integer" else "it is no number such as 0.1"


def _say(line: str, hint: str = "") -> None:
    print(line, file=sys.stderr)
    if hint:
        print(f"  {hint}", file=sys.stderr)


def _quiet_pipe(code: int) -> int:
    """The reader went away (`| head -1`): no complaint, also not from Python when it closes stdout."""
    drop(sys.stdout)
    return code
