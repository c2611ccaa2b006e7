"""`ostiary run`: attest, fetch the configuration, show injection files to the program only, exec it.

Standard library only, and as little of it as will do: every import is paid at each start of a program. This file
imports nothing, so that `ostiary.entry` can look inside the package without loading it. `run.main` is the way in.
"""
