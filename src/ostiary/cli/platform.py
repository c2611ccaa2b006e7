"""`ostiary platform`: the software platform that stands in for hardware."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The software platform: quotes in the forms of real hardware, for any Linux machine. It protects nothing.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Directory = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="Its keys and root certificate; made at the first start.")
]
_DIRECTORY = Path("ostiary-platform")
ROOT_FILE = "root.pem"
SOCKET_FILE = "platform.sock"


@app.command()
def init(directory: _Directory = _DIRECTORY) -> None:
    """Make the platform's keys, if they are not there, and print the path of its root certificate.

    Example:

      ostiary serve --trust-software-root $(ostiary platform init)
    """
    from ostiary.platform import init_platform

    init_platform(directory, datetime.now(UTC))
    print(directory / ROOT_FILE)


@app.command()
def serve(
    directory: _Directory = _DIRECTORY,
    socket: Annotated[
        Path | None,
        typer.Option("--socket", metavar="PATH", help="Where programs ask for quotes; default: DIR/platform.sock."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="When ready, print root and socket as one JSON object.")
    ] = False,
) -> None:
    """Run the quoting daemon: it measures whoever asks over its unix socket, and signs.

    Services trust it only if their owner names its root: `ostiary serve --trust-software-root DIR/root.pem`. Programs
    find it by `ostiary run --platform-socket PATH`. SIGTERM or ctrl-C end it.

    Example:

      ostiary platform serve --dir ./ostiary-platform
    """
    import asyncio
    import signal

    from ostiary.platform import serve_platform

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    log = logging.getLogger("ostiary.platform")
    path = socket or directory / SOCKET_FILE

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with serve_platform(directory, path):
            log.warning("this is the software platform: it protects nothing, and is for development only")
            log.info(
                "quoting at %s; the root for `ostiary serve --trust-software-root` is %s", path, directory / ROOT_FILE
            )
            if as_json:
                print(json.dumps({"root": str(directory / ROOT_FILE), "socket": str(path)}), flush=True)
            await stop.wait()

    asyncio.run(run())
