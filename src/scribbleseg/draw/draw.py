"""The verb `draw`: open or make the data set, serve the page on this computer, open the browser."""

import os
import secrets
import socket
import threading
import webbrowser
from pathlib import Path

from ..config import Draw
from ..core.console import say
from ..core.errors import InputError
from . import scribbles_folder
from .folder import find_scans
from .session import Session, as_colour

STOPPING = "stopping the update, which ends its step first. The strokes are saved. Ctrl-C again stops it at once."


def draw(config: Draw) -> None:
    """Serve the page until Ctrl-C. A training that runs is then stopped; strokes are on disk after each stroke.

    A second Ctrl-C does not wait for the training. At the end a data set that was made here is completed for nnU-Net.

    Raises InputError for a folder that holds no scan and is no data set, for classes that the data set does not have,
    and for a port that is taken.
    """
    session = open_session(config.folder, config.classes)
    try:
        from .server import make_app, make_server
    except ImportError as error:
        raise InputError(f"draw needs starlette and uvicorn ({error}). Run: pip install 'scribbleseg[draw]'") from error
    from .update import PATIENCE, Updater

    listening = listen(config.port) if config.port else listen_again(session.port)
    port, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    session.remember(port)
    updater = Updater(session)
    app = make_app(session, updater, token, port)
    server = make_server(app, ending=lambda: say(STOPPING) if updater.running else None)
    address = f"http://127.0.0.1:{port}/?token={token}"
    kept = session.place if session.dataset is not None else f"{session.place}, made when the classes are named"
    say(f"data set: {kept}\nopen {address}\nEnd with Ctrl-C.")
    if not config.no_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    try:
        server.run(sockets=[listening])
    finally:
        try:
            updater.stop(0 if server.force_exit else PATIENCE)
        finally:
            session.complete()


def open_session(folder: Path, classes: tuple[str, ...] = ()) -> Session:
    """The session of a data set, or of a bare folder of scans; `classes`: NAME or NAME=COLOUR each."""
    if (folder / "dataset.json").is_file():
        session = Session(folder)
    else:
        find_scans(folder)
        session = Session(scribbles_folder(folder), folder)
        beside = session.place.parent
        if session.dataset is None and not os.access(beside, os.W_OK):
            raise InputError(
                f"{session.place}: the data set would lie here, and {beside} cannot be written to. Make a folder where "
                f"you may write, link or copy the scans of {folder} into it, and draw on that."
            )
    if classes:
        pairs = [word.partition("=") for word in classes]
        colours = [as_colour(colour) if equals else None for _, equals, colour in pairs]
        session.name_classes([name for name, _, _ in pairs], colours)
    return session


def listen(port: int) -> socket.socket:
    """A socket on this computer's own address; port 0 is any free one. Raises InputError if the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port}: cannot be used ({error}). Choose another, or leave --port out.") from error


def listen_again(port: int) -> socket.socket:
    """As `listen`, on the port of the last server if it is free, so that a page that is still open can save."""
    try:
        return listen(port)
    except InputError:
        return listen(0)
