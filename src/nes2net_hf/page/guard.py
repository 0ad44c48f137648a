"""
Protect the servers of `nes2net demo` and `nes2net serve` from pages of other sites in the user's browser. Such a page
can send requests to 127.0.0.1, or point its own host name there (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ANY_ADDRESS = ("0.0.0.0", "::", "[::]")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.%]+\]|[\w.-]+?)\.?(?::\d{1,5})?", re.IGNORECASE)


class PageGuard:
    """
    ASGI middleware that refuses a request if its `Host` is not this machine's, or if a page of another site sent it.

    starlette's TrustedHostMiddleware does not handle wildcard addresses (0.0.0.0) or origins.

    Args:
        app: the protected application.
        bound: the host that the server is bound to. If it is every address of this machine, every address is
            accepted, because an attacking page would use a name. The port may differ (a tunnel).
        more: other accepted host names, such as a proxy's; `*` accepts all requests.
        refuse: returns the answer to a refused request, given a sentence and a status.
    """

    def __init__(
        self,
        app: ASGIApp,
        bound: str,
        more: Sequence[str] = (),
        refuse: Callable[[str, int], Response] = PlainTextResponse,
    ) -> None:
        self._app = app
        self._refuse = refuse
        self._more = {_name(name) or name for name in more}
        self._names = {*LOOPBACK, _name(bound) or f"[{bound.lower()}]", *self._more}
        self._any_address = bound in ANY_ADDRESS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] in ("http", "websocket") and "*" not in self._more:
            refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # policy violation
        else:
            await self._refuse(refusal[1], refusal[0])(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Returns status and sentence if the request must be refused, else None."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = _name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not (name in self._names or (self._any_address and _is_address(name))):
            asked = f" {name}" if name else ""
            return 400, (
                f"This server does not accept the host name{asked}: if the name is yours, start the server with "
                "--allow-host and the name."
            )
        if self._is_foreign(scope, headers, hosts[0]):
            return 403, "Requests from pages of other sites are refused: open this page at its own address."
        return None

    def _is_foreign(self, scope: Scope, headers: Headers, host: str) -> bool:
        """Returns whether a page of another site sent the request. Only browsers send origins."""
        origin = headers.get("origin")
        if origin is not None:
            place = origin.partition("://")[2]
            return _without_usual_port(place) != _without_usual_port(host) and _name(place) not in self._more
        if headers.get("sec-fetch-site") in (None, "same-origin", "none"):
            return False
        # Links to this page are allowed. Images, frames and forms in pages of other sites are not.
        is_link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
        return not (is_link and scope.get("method") in ("GET", "HEAD"))


def _name(host: str) -> str | None:
    """`LOCALHOST.:7860` → `localhost`; None if it is not a host."""
    match = _HOST.fullmatch(host)
    return match["name"].lower() if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
        return True
    except ValueError:
        return False


def _without_usual_port(place: str) -> str:
    return re.sub(r":(80|443)$", "", place.lower())
