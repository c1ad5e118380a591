"""python -m scribbleseg.draw FOLDER: one update in a process of its own, which ends with the server."""

import os
import signal
import sys
import threading
from pathlib import Path

from .work import main


def end_with_the_server() -> None:
    """The server holds the other end of stdin; it closes when the server ends, whatever ended it."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=end_with_the_server, daemon=True).start()
sys.exit(main(Path(sys.argv[1])))
