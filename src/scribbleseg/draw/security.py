"""Who may speak to the server: only a page of its own, opened on this computer with the token of the address."""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_HEADER = "x-scribbleseg"  # a foreign page cannot send it without asking first, and is not answered
OTHER = (
    "This page shows another data set than the server, so nothing was changed. "
    "Start scribbleseg draw with the page's data set again, or reload the page."
)
SAFE_METHODS = ("GET", "HEAD")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Answers 401 without the token, and 403 to a foreign Host or Origin and to a change without the page's header.

    The header holds the id of the page's data set; a page that stayed open from another one may change nothing (409).
    The address opened first has the token in its query. The answer puts it into a cookie and leads to the address
    without it. Every answer carries HEADERS.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, dataset: str):
        self.app, self.token, self.port, self.dataset = app, token, port, dataset
        self.cookie = f"scribbleseg_{port}"  # several servers of one computer share their cookies
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refuse(scope) if scope["type"] == "http" else PlainTextResponse("HTTP only", 400)
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        """The answer to a request that must not reach the application; None if it may."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if headers.get("host", "") not in self.hosts:
            return PlainTextResponse("This page is only for the computer that it runs on.", 403)
        if origin is not None and origin not in {f"http://{host}" for host in self.hosts}:
            return PlainTextResponse("A page of another site may not use this server.", 403)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and self._is_token(given):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict", path="/")
            return answer
        if not self._is_token(_cookie(headers.get("cookie", ""), self.cookie)):
            return PlainTextResponse("Open the address that scribbleseg draw printed, with its token.", 401)
        if scope["method"] in SAFE_METHODS:
            return None
        if OWN_HEADER not in headers:
            return PlainTextResponse("Only the page itself may change anything.", 403)
        return None if headers[OWN_HEADER] == self.dataset else JSONResponse({"error": OTHER}, 409)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header)
    except CookieError:
        return ""
    return found[name].value if name in found else ""
