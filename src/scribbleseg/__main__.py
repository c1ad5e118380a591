"""python -m scribbleseg: the command line."""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()):  # as with the command `scribbleseg`: nothing is imported from here
    del sys.path[0]

from .cli import main

sys.exit(main())
