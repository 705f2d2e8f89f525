"""The command line: the only place that prints or exits."""

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from emacheck import __version__
from emacheck.cli.interrupts import heed_no_more, heed_signals
from emacheck.errors import EmacheckError
from emacheck.printable import printable

TROUBLE = 2
DEPENDENCIES = ("jinja2", "markupsafe", "matplotlib", "numpy", "packaging", "rich", "tomli")  # and pillow
REFUSED = {
    errno.EAGAIN: "Allow more threads and processes (ulimit -u, docker run --pids-limit, the limit of the pod).",
    errno.ENOMEM: "Allow more memory (ulimit -v, the limit of the job or container).",
    errno.EMFILE: "Allow more open files (ulimit -n).",
}
COMMANDS = {
    "run": ("emacheck.cli.run", "Train EMANet on a device and judge the training against a reference."),
    "compare": ("emacheck.cli.compare", "Judge two logs that somebody else made."),
    "audit": ("emacheck.cli.audit.command", "Audit one training iteration on a device, tensor by tensor."),
    "selftest": ("emacheck.cli.selftest", "Prove with faults and benign variations what the audit finds."),
    "show": ("emacheck.cli.show", "Show what is understood of a log."),
    "explain": ("emacheck.cli.explain", "Explain a rule or an oddity, or show a page of the documentation."),
    "reference": ("emacheck.cli.reference", "Make, list, show and verify stored references."),
    "doctor": ("emacheck.cli.doctor", "Look at what this machine and a device can do before training."),
    "data": ("emacheck.cli.data", "Make a synthetic Cityscapes, or check any Cityscapes."),
}


class Commands(click.Group):
    """Loads a command's module only when it is called, so that help and errors come at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of a word that is none, say what was perhaps meant."""
        word = args[0]
        if word not in COMMANDS and not word.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(word, COMMANDS, n=1)
            if os.path.lexists(word):
                near = ["compare LOG_A LOG_B"]
            ctx.fail(f"No such command {word!r}." + (f" Did you mean 'emacheck {near[0]}'?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emacheck")
def emacheck() -> None:
    """Is training on this device numerically the training on the reference device?

    Exit codes: 0 PASS, 1 FAIL, 2 trouble (no verdict), 3 INCONCLUSIVE.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
        else:
            _buffer(name)
    try:
        code = invoke(sys.argv[1:])
        heed_no_more()
    except KeyboardInterrupt:  # at the very end
        heed_no_more()
        _let_go_of_output()
        code = TROUBLE
    sys.exit(code)


def _buffer(name: str) -> None:
    """Give a standard stream a buffer: without one (PYTHONUNBUFFERED), Python loses the rest of a short write."""
    stream = getattr(sys, name)
    if isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        how = {"encoding": stream.encoding, "errors": stream.errors, "line_buffering": True}
        buffered = io.TextIOWrapper(io.BufferedWriter(stream.detach()), **how)
        for each in (name, f"__{name}__"):
            setattr(sys, each, buffered)


def invoke(arguments: list[str]) -> int:
    """Run the command line and return the exit code; every error ends here.

    Args:
        arguments: The arguments without the program's name.

    Returns:
        0 PASS, 1 FAIL, 2 trouble, 3 INCONCLUSIVE.
    """
    try:
        return _invoke(arguments)
    except OSError as error:
        _let_go_of_output()
        # Of a reader of our output who has gone, as `head` does, nobody needs to read.
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):
                click.echo(f"emacheck: {_system_trouble(error)}", err=True)
            _let_go_of_output()
        return TROUBLE


def _invoke(arguments: list[str]) -> int:
    """Run the command line; what the system refused is left to the caller, because saying it may fail as well."""
    try:
        heed_signals()
        result: Any = emacheck.main(args=arguments, prog_name="emacheck", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        # It repeats what was typed, which may come from a variable of a CI server.
        click.echo(printable(said.getvalue(), newlines=True, length=None), err=True, nl=False)
        return TROUBLE
    except EmacheckError as error:
        say(error)
        return TROUBLE
    except (click.Abort, KeyboardInterrupt) as error:
        # click puts an Abort in the place of what interrupted, which may say what is left.
        left = "; ".join(map(str, ["interrupted", *(error.__cause__ or error).args]))
        click.echo(f"emacheck: {printable(left, length=None)}", err=True)
        return TROUBLE
    except SystemExit as end:
        # Commands return their code. Where the reader of our output has gone, click exits with 1, which is FAIL here.
        if end.code != 1:
            raise
        raise BrokenPipeError from None
    except OSError:
        raise
    except MemoryError as error:
        found = f" ({printable(str(error))})" if str(error) else ""
        click.echo(
            f"emacheck: out of memory{found}. Free some, allow this process more (ulimit -v, the limit of the job or "
            "container), or give it less to read.",
            err=True,
        )
        return TROUBLE
    except Exception as error:
        click.echo(_lacking(error) or _bug(), err=True)
        return TROUBLE
    return result if isinstance(result, int) else 0


def say(error: EmacheckError) -> None:
    """Print a deliberate error."""
    # A message may quote a log, a path or a worker's last words: nothing of it may control the terminal.
    click.echo(f"emacheck: {printable(str(error), newlines=True, length=None)}", err=True)


def _lacking(error: Exception) -> str:
    """Say which dependency is not installed, if that is the error, as where emacheck was installed without them."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    missing = "pillow" if module == "PIL" else module if module in DEPENDENCIES else ""
    return missing and f"emacheck: {missing} is not installed, and emacheck needs it: pip install {missing}"


def _bug() -> str:
    """Return the lines that tell where, and ask for a report."""
    where = printable(traceback.format_exc(), newlines=True, length=None)
    return f"{where}\nemacheck {__version__}: this is a bug in emacheck; please report it with the lines above."


def _let_go_of_output() -> None:
    """Send to nowhere what cannot be written: the interpreter would try again at exit, and exit with another code."""
    for stream in filter(None, (sys.__stdout__, sys.__stderr__)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _system_trouble(error: OSError) -> str:
    """Say what the system refused and what to do."""
    what = error.strerror or str(error)
    if error.filename is not None:
        return f"{printable(str(error.filename))}: {what}. See that it exists and may be read and written here."
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the output could not be written: {what}. Free some space, or send the output elsewhere."
    if error.errno in REFUSED:
        return f"the system refused it: {what}. {REFUSED[error.errno]}"
    if "temporary directory" in what:
        return f"{what}. Set TMPDIR to a directory that may be written to and has room."
    try:
        place = os.getcwd()  # noqa: PTH109 - the check itself
    except OSError:
        return f"the working directory is gone: {what}. Change to one that exists."
    return f"the system refused something in {printable(place)}: {what}. See that files and output can be written."
