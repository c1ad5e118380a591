"""python -m scribbleseg.bench JSON: one job in a process of its own."""

import sys

from .worker import main

sys.exit(main())
