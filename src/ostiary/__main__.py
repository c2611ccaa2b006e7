"""`python -m ostiary` is the command `ostiary`."""

from ostiary.entry import main

main()
