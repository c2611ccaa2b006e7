"""Started by `ostiary.entry` as `python -I -S -B …/ostiary/launcher/__main__.py ARGUMENTS`, never imported.

`-I -S` leave only the standard library importable. The directory that holds the package goes to the end of the search
path, so that nothing beside it can stand in for a module of the standard library.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from ostiary.launcher.run import main

sys.exit(main(sys.argv[1:]))
