"""The ``modhaven`` command. Errors are one sentence on standard error, and exit status 2."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from modhaven import __version__, config, direct_env
from modhaven.store.base import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with ``arguments`` (the process's own by default); return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except (config.ConfigError, StoreError) as error:
        print(f"modhaven: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="modhaven", description="A Go module proxy that survives its upstreams."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="serve the GOPROXY protocol",
        description="Serve the GOPROXY protocol. Without any option: the public mirrors, "
        "a store in your cache directory, on 127.0.0.1:3000. A flag outranks the file.",
    )
    serve.set_defaults(run=_serve)
    serve.add_argument("--config", type=Path, metavar="FILE", help="YAML configuration")
    serve.add_argument("--listen", metavar="ADDRESS", help="host:port or unix:/path")
    serve.add_argument("--store", metavar="FOLDER", help="where modules are kept")
    serve.add_argument(
        "--upstreams", metavar="CHAIN", help="as in GOPROXY: https://a|https://b,direct, off"
    )
    serve.add_argument(
        "--sumdb", metavar="KEY", help='checksum database "name+hash+key [url]", or off'
    )
    serve.add_argument("--nosumdb", metavar="PATTERNS", help="as in GONOSUMDB")
    serve.add_argument("--ca-file", metavar="FILE", help="certificate authorities to trust")
    serve.add_argument("--node", metavar="NAME", help="goes out as X-Modhaven-Backend")
    serve.add_argument("--workers", type=int, metavar="N", help="processes")
    serve.add_argument("--threads", type=int, metavar="N", help="threads of each process")
    verify = commands.add_parser(
        "verify",
        help="verify the whole store again",
        description="Compare every file of the store with the checksum database, at first with "
        "what is kept of it, and with the pins. Wrong files go to quarantine, and the exit "
        "status is 1. A server may use the store meanwhile.",
    )
    verify.set_defaults(run=_verify)
    verify.add_argument(
        "--config", type=Path, metavar="FILE", required=True, help="YAML configuration"
    )
    check = commands.add_parser("check-config", help="check a configuration file and exit")
    check.set_defaults(run=_check_config)
    check.add_argument("file", type=Path, metavar="FILE")
    commands.add_parser("version", help="print the version").set_defaults(run=_version)
    return parser


def _serve(options: argparse.Namespace) -> None:
    def load() -> config.Config:
        return _with_flags(
            config.load(options.config) if options.config else config.Config(), options
        )

    loaded = load()
    if not loaded.ca_file.is_file():
        raise config.ConfigError(
            f"ca_file {loaded.ca_file} does not exist; install ca-certificates or name another file"
        )
    if any(spec.is_direct for spec in loaded.upstreams):
        direct_env.check_commands(loaded.direct)
    from modhaven import serve  # noqa: PLC0415 - gunicorn is slow to load, and only needed here
    from modhaven.store.disk import DiskStore  # noqa: PLC0415

    # Opened once here, so that a store that cannot be written is a sentence, not a crash loop.
    DiskStore(loaded.store.path, min_free_bytes=loaded.store.min_free_bytes)
    if options.config is None:
        _print_line_to_set(loaded)
    serve.run(load)


def _with_flags(loaded: config.Config, options: argparse.Namespace) -> config.Config:
    names = ("listen", "upstreams", "sumdb", "nosumdb", "node", "workers", "threads")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.ca_file is not None:
        given["ca_file"] = str(Path(options.ca_file).absolute())
    if options.store is not None:
        given["store"] = {"path": str(Path(options.store).absolute())}
    try:
        flags = config.from_mapping(given)
    except config.ConfigError as error:
        raise config.ConfigError(f"--{error}") from None
    values = {name: getattr(flags, name) for name in given}
    if options.store is not None:
        values["store"] = dataclasses.replace(loaded.store, path=flags.store.path)
    return dataclasses.replace(loaded, **values)


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
