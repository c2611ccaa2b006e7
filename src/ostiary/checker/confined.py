"""Rules judged in a process of their own, so that no session that somebody proposes can exhaust or crash the checker.

The child is `python -m ostiary.checker.confined`: JSON comes in by stdin, and for each rule a line of JSON goes out by
stdout as soon as it is known. The child is given no key, and bounds its own memory and time before it judges.
"""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from ostiary.checker.expression import Expression, Judged, Plain, Result, judge
from ostiary.errors import ConfigurationError, OutsideError

CPU_SECONDS = 20
"""Of all rules of one proposal together."""
WALL_SECONDS = 120
"""The same, on a machine that is busy with other things."""
MEMORY_BYTES = 1024 * 1024 * 1024
"""Of address space, the libraries' own included."""
MAX_DETAIL_CHARACTERS = 2000

_CHILD = (sys.executable, "-m", "ostiary.checker.confined")
_NOT_REACHED = (
    f"it was not judged within {CPU_SECONDS} s and {MEMORY_BYTES // 1024**2} MiB, which all rules have together"
)


def judge_confined(
    expressions: Sequence[Expression], variables: Mapping[str, Plain], *, cpu_seconds: int = CPU_SECONDS
) -> tuple[Judged, ...]:
    """As `expression.judge`, in a process that ends after `cpu_seconds` or at MEMORY_BYTES.

    Guarantees: one result for each expression, in their order; NO_RESULT for those that the child did not come to.
    Raises OutsideError: there is no child.
    """
    asked = {
        "cpu_seconds": cpu_seconds,
        "variables": variables,
        "expressions": [
            {"name": one.name, "must": one.must, "listed": None if one.listed is None else list(one.listed)}
            for one in expressions
        ],
    }
    found = _found(_ask(json.dumps(asked).encode()))
    return tuple(
        found.get(one.name, Judged(name=one.name, result=Result.NO_RESULT, why=_NOT_REACHED, detail=_NOT_REACHED))
        for one in expressions
    )


def check_confined() -> None:
    """That rules can be judged here at all, so that what is wrong with this machine rejects nobody's proposal.

    Raises ConfigurationError, OutsideError.
    """
    [judged] = judge_confined([Expression(name="check", must="true")], {})
    if judged.result is not Result.HOLDS:
        raise ConfigurationError(
            "rules cannot be judged in a process of their own", judged.detail, f"`{' '.join(_CHILD)}` must run here"
        )


def _ask(question: bytes) -> bytes:
    """What the child wrote, whether it came to its end or not. Raises OutsideError: it could not be started."""
    # Its own stderr would be pieces of the session that made the library stumble.
    try:
        done = subprocess.run(
            _CHILD, input=question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=WALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as stopped:
        return stopped.stdout or b""
    except OSError as error:
        # No fault of the proposal, which therefore goes on waiting for us.
        raise OutsideError("rules cannot be judged: no process can be started", error.strerror or str(error)) from error
    return done.stdout


def _found(answer: bytes) -> dict[str, Judged]:
    """The results of whole lines; a child that was stopped may have left a piece of one."""
    found: dict[str, Judged] = {}
    for line in answer.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            one = json.loads(line)
            found[one["name"]] = Judged(
                name=one["name"], result=Result(one["result"]), why=one["why"], detail=one["detail"]
            )
    return found


def answer(question: bytes) -> None:
    """The child's part: print what comes of each expression of `question`."""
    asked = json.loads(question)
    expressions = [
        Expression(name=one["name"], must=one["must"], listed=None if one["listed"] is None else tuple(one["listed"]))
        for one in asked["expressions"]
    ]
    for judged in judge(expressions, asked["variables"]):
        line = {"name": judged.name, "result": judged.result.value, "why": judged.why}
        print(json.dumps({**line, "detail": judged.detail[:MAX_DETAIL_CHARACTERS]}), flush=True)  # noqa: T201


def _bound(cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    _question = sys.stdin.buffer.read()
    _bound(int(json.loads(_question)["cpu_seconds"]))
    answer(_question)
