"""The ``modhaven`` command. Errors are one sentence on standard error, and exit status 2."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from modhaven import __version__, config, flags, startup
from modhaven.pool import commands as pool
from modhaven.purge import commands as purge
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (the process's own by default); return its exit status."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given) or 0)
    except (config.ConfigError, StoreError) as error:
        print(f"modhaven: {flags.name_the_flag(str(error), given)}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; its usage would be sixty lines."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"modhaven: {message}; '{self.prog} --help' lists what there is\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="modhaven",
        description="A Go module proxy that survives its upstreams.",
        epilog="'modhaven COMMAND --help' tells more. Without any file or flag, 'modhaven serve' "
        "is a GOPROXY on 127.0.0.1:3000.",
        # An abbreviation that works today would be ambiguous after the next new key.
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(
        required=True, title="commands", metavar="COMMAND", parser_class=_Parser
    )
    serve = commands.add_parser(
        "serve",
        help="serve the GOPROXY protocol",
        usage="modhaven serve [--config FILE] [FLAG VALUE]...",
        description="Serve the GOPROXY protocol. Without any flag: the public mirrors, a store in "
        "your cache directory, on 127.0.0.1:3000. Every key of the configuration file has a "
        "flag, and the flag outranks the file.",
        epilog="Example: modhaven serve --store /srv/modules "
        "--upstreams 'https://goproxy.cn|https://proxy.golang.org'",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=8),
        allow_abbrev=False,
    )
    serve.set_defaults(run=_serve)
    flags.add(serve)
    verify = commands.add_parser(
        "verify",
        help="verify the whole store again",
        description="Compare every file of the store with the checksum database, at first with "
        "what is kept of it, and with the pins. Wrong files go to quarantine, and the exit "
        "status is 1. A server may use the store meanwhile.",
    )
    verify.set_defaults(run=_verify)
    verify.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="configuration file in YAML"
    )
    check = commands.add_parser(
        "check-config",
        help="check a configuration file",
        description="Check a configuration file. Exit status 2, and a sentence that names the "
        "key, when the server would not start with it.",
    )
    check.set_defaults(run=_check_config)
    check.add_argument("file", type=Path, metavar="FILE", help="configuration file in YAML")
    pool.add(commands)
    purge.add(commands)
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _serve(given: argparse.Namespace) -> None:
    loaded = flags.load(given)
    startup.check(loaded)
    # prometheus-client decides when it is loaded whether the workers share their counters.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="modhaven-metrics-")
    from modhaven import serve  # noqa: PLC0415 - gunicorn is slow to load, and only needed here

    if given.config is None:
        _print_line_to_set(loaded)
    serve.run(lambda: flags.load(given))


def _print_line_to_set(loaded: config.Config) -> None:
    where = loaded.listen
    lines = [f"modhaven {__version__} keeps modules in {loaded.store.path}"]
    if not where.startswith("unix:"):
        lines.append(f"  go env -w GOPROXY=http://{where}")
    print("\n".join(lines), file=sys.stderr, flush=True)  # noqa: T201 - a command's output


def _verify(options: argparse.Namespace) -> int:
    loaded = config.load(options.config)
    from modhaven import audit, serve  # noqa: PLC0415 - slow to load, and only needed here

    # What is wrong is said file by file; that a database is silent only in the summary.
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    audit.check_user(loaded.store.path)
    # As the server's: nginx reads through the store's group, others not at all.
    before = os.umask(serve.UMASK)
    try:
        parts = serve.join(loaded)
        return audit.run(store=parts.store, verifier=parts.verifier)
    finally:
        os.umask(before)


def _check_config(options: argparse.Namespace) -> None:
    config.load(options.file)


def _version(_options: argparse.Namespace) -> None:
    print(f"modhaven {__version__}")  # noqa: T201 - a command's output


if __name__ == "__main__":
    sys.exit(main())
