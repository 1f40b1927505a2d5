"""The application behind HTTPS, inside the agent's process."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_GRACE_S = 1


class ApiServer:
    """Serves until it is stopped or its task is cancelled."""

    def __init__(self, app: ASGIApp, listening: socket.socket, tls: ssl.SSLContext) -> None:
        config = uvicorn.Config(
            app,
            http=PeerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_GRACE_S,
            limit_concurrency=200,
        )
        config.load()
        config.ssl = tls
        self._server = _QuietServer(config)
        self._listening = listening

    async def run(self) -> None:
        """Serve.  Connections that are open at the end have a second."""
        serving = asyncio.ensure_future(self._server.serve(sockets=[self._listening]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self.stop()
            await serving
            raise
        finally:
            self._listening.close()

    def stop(self) -> None:
        """Let `run` end."""
        self._server.should_exit = True


class _QuietServer(uvicorn.Server):
    """Signals belong to the agent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class PeerProtocol(H11Protocol):
    """Puts the client's verified certificate into the scope, as ASGI's TLS extension has it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peercert")
        self.app = _WithPeer(self.app, common_name(peer))


class _WithPeer:
    """The application, told who is at the other end of this connection."""

    def __init__(self, app: Any, name: str | None) -> None:
        self._app = app
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {**scope.get("extensions", {}), "tls": {"client_cert_name": self._name}}
        await self._app({**scope, "extensions": extensions}, receive, send)


def common_name(peer: dict[str, Any] | None) -> str | None:
    """Of a certificate as ssl.getpeercert() gives it; None: none was shown."""
    if not peer:
        return None
    for relative in peer.get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                return str(value)
    return "a certificate without a name"
