"""`ostiary demo`."""

from __future__ import annotations


def demo() -> None:
    """Show the whole way in a minute: platform, service, sessions, programs, a policy board.

    Starts everything on free ports of 127.0.0.1 in a temporary directory, runs an HTTPS server and redis under
    attestation, lets a changed program be refused, has three people and a program decide about a session (with the
    extra `checker`), and stops clean. Needs curl, openssl, redis-server and redis-cli.
    """
    import signal
    import sys

    from ostiary.demo import tell

    for number in (signal.SIGTERM, signal.SIGHUP):
        # As an exception, so that everything started is stopped on the way out.
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    tell(lambda line: print(line, flush=True))
