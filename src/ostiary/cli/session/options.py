"""Options that several session commands have."""

from __future__ import annotations

from ostiary.cli.arguments import Option

VARIABLE = Option(
    flags=("-e",),
    attribute="variables",
    metavar="NAME=VALUE",
    repeated=True,
    help="The value of a variable $NAME of the template. Repeatable; goes before the environment.",
)
USE_ENV = Option(
    flags=("--use-env",),
    attribute="use_env",
    help="Take variables that -e does not give from the environment.",
)
NAME = Option(
    flags=("-n", "--name"),
    attribute="name",
    metavar="NAME",
    help="The session's name, in place of the one in the file; variables are replaced first.",
)
FAIL_ON_WARNING = Option(
    flags=("--fail-on-warning",),
    attribute="fail_on_warning",
    help="Fail if the file gives reason for a warning, before anything is sent.",
)
TEMPLATE = (VARIABLE, USE_ENV, NAME, FAIL_ON_WARNING)

TEMPLATE_DETAILS = (
    "FILE is a session template: $NAME and ${NAME} in values are replaced, from -e and with --use-env from the "
    "environment; \\$ is a dollar sign. A value that is one variable with the text ~ becomes null."
)
OTHER_FORMS = (
    "FILE may also be the JSON of a signed or of an encrypted session, which goes to the CAS as it is: no variable is "
    "replaced in it, and --name is wrong usage."
)
