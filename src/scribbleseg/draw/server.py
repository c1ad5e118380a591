"""The server of the page: its files, and the requests in which it asks for slices and sends strokes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from ..core.errors import InputError
from ..data.dataset import Case
from .export import export_masks, masks_folder
from .security import Guard
from .session import Gone, Session, as_colour
from .strokes import Conflict, Strokes
from .update import Updater

STATIC = Path(__file__).parent / "static"
POLL_SECONDS = 0.5  # between two looks at an update
LARGEST_BODY = 64 * 2**20  # bytes; a slice of 8192 × 8192 pixels


def make_app(session: Session, updater: Updater, token: str, port: int) -> Starlette:
    """The application for one data set. Every path needs the token; the answers are described at each function."""
    pages = _Pages(session, updater)
    case = "/api/cases/{case}"
    routes = [
        Route("/", lambda request: FileResponse(STATIC / "index.html")),
        Mount("/static", StaticFiles(directory=STATIC)),
        Route("/api/session", pages.session_),
        Route("/api/classes", pages.name_classes, methods=["POST"]),
        Route(case, pages.case),
        Route(case + "/image/{axis:int}/{index:int}", pages.image),
        Route(case + "/strokes/{axis:int}/{index:int}", pages.strokes),
        Route(case + "/strokes/{index:int}", pages.save_slice, methods=["PUT"]),
        Route(case + "/prediction/{axis:int}/{index:int}", pages.prediction),
        Route(case + "/uncertainty/{axis:int}/{index:int}", pages.uncertainty),
        Route(case + "/accept", pages.accept, methods=["POST"]),
        Route(case + "/restore", pages.restore, methods=["POST"]),
        Route(case + "/reviewed", pages.review, methods=["PUT"]),
        Route("/api/next", pages.next_slice),
        Route("/api/update", pages.start_update, methods=["POST"]),
        Route("/api/update", pages.stop_update, methods=["DELETE"]),
        Route("/api/events", pages.events),
        Route("/api/export", pages.export, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[[Request, Exception], Response | Awaitable[Response]]] = {
        InputError: lambda request, error: JSONResponse({"error": str(error)}, 400),
        Gone: lambda request, error: JSONResponse({"error": str(error)}, 410),
        Conflict: lambda request, error: JSONResponse(
            {"error": "The strokes of this case were changed elsewhere. Open the case again."}, 412
        ),
    }
    guard = Middleware(Guard, token=token, port=port, dataset=session.id)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)
    app.state.closing = lambda: False
    return app


class _Server(uvicorn.Server):
    ending: Callable[[], object]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.ending()
        await super().shutdown(sockets)


def make_server(app: Starlette, ending: Callable[[], object] = lambda: None) -> uvicorn.Server:
    """The server that runs the application; the streams of events end as soon as it is told to exit.

    `ending` is called at once when it is told to exit, before the requests that are not answered yet.
    """
    server = _Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    server.ending = ending
    app.state.closing = lambda: server.should_exit
    return server


class _Pages:
    """One function per request. Those that read or write volumes run on threads."""

    def __init__(self, session: Session, updater: Updater):
        self.session, self.updater = session, updater

    def session_(self, request: Request) -> Response:
        """Classes, cases and the state of the update."""
        return JSONResponse(self.session.describe() | {"update": self.updater.as_json()})

    async def name_classes(self, request: Request) -> Response:
        """`{"classes": [{"name", "colour"}]}` without background: makes the data set, adds classes, changes colours."""
        rows = await _json(request, "classes", list)
        if not all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows):
            raise InputError('expected {"classes": [{"name": "liver", "colour": "#008000"}]}.')
        colours = [as_colour(row["colour"]) if row.get("colour") else None for row in rows]
        await run_in_threadpool(self.session.name_classes, [row["name"] for row in rows], colours)
        return JSONResponse(self.session.describe())

    def case(self, request: Request) -> Response:
        return JSONResponse(self.session.describe_case(request.path_params["case"]))

    def image(self, request: Request) -> Response:
        """A plane of `?channel=0`, raw numbers row by row, little-endian; of colours three numbers per pixel."""
        channel = request.query_params.get("channel", "0")
        if not channel.isdecimal():
            raise InputError(f"channel {channel!r}: expected a number.")
        case, axis, index = self._place(request)
        return _raw(self.session.images.shown(case, int(channel), axis, index))

    def strokes(self, request: Request) -> Response:
        """A plane of strokes, uint8; 255 is not drawn. ETag is their version."""
        shown, version = self.session.strokes.shown(*self._place(request))
        return _raw(shown, {"etag": f'"{version}"'})

    async def save_slice(self, request: Request) -> Response:
        """A slice of strokes as `strokes` answers it. If-Match is the version that it is drawn on; else 412."""
        body = await _body(request)
        name, index = request.path_params["case"], request.path_params["index"]
        return _saved(await run_in_threadpool(self.session.save_slice, name, index, body, _version(request)))

    def accept(self, request: Request) -> Response:
        """Answers `accepted` too, the key with which `restore` takes it back."""
        strokes, key = self.session.accept(request.path_params["case"], _version(request))
        return _saved(strokes, {"accepted": key})

    async def restore(self, request: Request) -> Response:
        """`{"accepted": KEY, "reviewed": false}`; reviewed: as it was before the case was accepted."""
        name, version = request.path_params["case"], _version(request)
        key, reviewed = await _json(request, "accepted", str), await _json(request, "reviewed", bool)
        return _saved(await run_in_threadpool(self.session.restore, name, version, key, reviewed))

    async def review(self, request: Request) -> Response:
        """`{"reviewed": true}`."""
        reviewed = await _json(request, "reviewed", bool)
        await run_in_threadpool(self.session.review, request.path_params["case"], reviewed)
        return Response(status_code=204)

    def prediction(self, request: Request) -> Response:
        """A plane of predicted classes, uint8."""
        return _raw(self.session.predictions.shown(*self._place(request)))

    def uncertainty(self, request: Request) -> Response:
        """A plane of the entropy, 0 to 255, uint8."""
        return _raw(self.session.predictions.shown(*self._place(request), uncertain=True))

    def next_slice(self, request: Request) -> Response:
        found = self.session.next_slice()
        return JSONResponse(None if found is None else dict(zip(("case", "slice"), found)))

    async def start_update(self, request: Request) -> Response:
        """`{"case": NAME}`, the case that is predicted first."""
        await run_in_threadpool(self.updater.start, await _json(request, "case", str))
        return JSONResponse(self.updater.as_json())

    def stop_update(self, request: Request) -> Response:
        self.updater.stop()
        return JSONResponse(self.updater.as_json())

    async def events(self, request: Request) -> Response:
        """Server-sent events: the state of the update, whenever it changes."""

        async def lines() -> AsyncIterator[str]:
            said = None
            while not (request.app.state.closing() or await request.is_disconnected()):
                now = await run_in_threadpool(self.updater.progress)
                if now != said:
                    yield f"data: {json.dumps(asdict(now))}\n\n"
                    said = now
                await asyncio.sleep(POLL_SECONDS)

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def export(self, request: Request) -> Response:
        """`{"folder": PATH, "reviewed": false}`: writes masks, answers of which cases and where, from / on."""
        folder, only = await _json(request, "folder", str), await _json(request, "reviewed", bool)
        if not folder.strip():
            raise InputError("no folder is named. Name a new folder for the masks.")
        target = masks_folder(self.session, folder)
        done = await run_in_threadpool(export_masks, self.session, target, only)
        return JSONResponse({"cases": done, "folder": str(target)})

    def _place(self, request: Request) -> tuple[Case, int, int]:
        at = request.path_params
        return self.session.case(at["case"]), at["axis"], at["index"]


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        raise InputError(f"a request of {length or 'unknown'} bytes; expected at most {LARGEST_BODY}.")
    return await request.body()


async def _json(request: Request, key: str, kind: type) -> Any:
    try:
        value = json.loads(await _body(request))
    except ValueError as error:
        raise InputError(f"the request is not JSON ({error}).") from error
    if not isinstance(value, dict) or not isinstance(value.get(key), kind):
        raise InputError(f"the request has no {kind.__name__} '{key}'.")
    return value[key]


def _version(request: Request) -> str:
    return request.headers.get("if-match", "").strip('"')


def _saved(strokes: Strokes, more: dict[str, str] | None = None) -> Response:
    return JSONResponse({"version": strokes.version, "drawn": strokes.counts.tolist()} | (more or {}))


def _raw(shown: np.ndarray, headers: dict[str, str] | None = None) -> Response:
    kind = {"x-type": shown.dtype.name, "x-rows": str(shown.shape[0]), "x-columns": str(shown.shape[1])}
    body = shown.astype(shown.dtype.newbyteorder("<"), copy=False).tobytes()
    return Response(body, media_type="application/octet-stream", headers=kind | (headers or {}))
