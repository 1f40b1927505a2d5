"""One exchange with one etcd member over its JSON gateway, and what can go wrong in it.

Whatever fails is told as `Failed`, with the one thing that matters for a write:
whether a byte of the request may have left this host.  Nothing is tried twice here.
aiohttp repeats a request on a stale connection by itself for idempotent methods
only; all of etcd's calls are POST, so it never does.
"""

import asyncio
import io
import json
import socket
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any

import aiohttp

from flightmode.store.wire import Json, Malformed, error_text

AddressInfo = tuple[Any, ...]
"""One row of `socket.getaddrinfo`."""

WATCH_HEADERS = {
    # The member ends the stream when it has lost its leader, instead of going on in silence.
    "Grpc-Metadata-hasleader": "true",
    # Go's HTTP/1.1 server reads on after it began to answer only if the connection is not to be
    # kept; without this it would wait for the end of our progress requests before answering.
    "Connection": "close",
}


class Failed(Exception):
    """An exchange with one member failed."""

    def __init__(self, text: str, *, sent: bool = True, refused: bool = False) -> None:
        super().__init__(text)
        self.sent = sent
        """Whether a byte of the request may have left; False only if there was no connection."""
        self.refused = refused
        """Whether one side did not accept the other's certificate."""


class Gateway:
    """The HTTP client.  Made lazily, since aiohttp's session needs a running loop."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._waits: set[asyncio.Timeout] = set()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def until(self, ends_at_s: float) -> AsyncIterator[None]:
        """Raise TimeoutError at `ends_at_s` of the loop's time, or when the gateway is closed."""
        async with asyncio.timeout_at(ends_at_s) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def post(self, url: str, path: str, body: Json, connect_s: float) -> Json:
        """One unary call.  Raises Failed.  No deadline of its own but for the connection."""
        data = io.BytesIO(json.dumps(body).encode())
        async with _failures_sorted(), self._request(url + path, data, {}, connect_s) as response:
            return _object(await response.read(), response.status)

    async def open_watch(
        self, url: str, requests: AsyncIterator[bytes], connect_s: float
    ) -> "Stream":
        """A stream of messages both ways, to be closed by the caller.  Raises Failed."""
        async with _failures_sorted():
            response = await self._request(url + "/v3/watch", requests, WATCH_HEADERS, connect_s)
            if response.status != HTTPStatus.OK:
                async with response:
                    _object(await response.read(), response.status)
        return Stream(response)

    def _request(
        self, url: str, data: object, headers: dict[str, str], connect_s: float
    ) -> aiohttp.client._RequestContextManager:
        if self.closed.is_set():
            raise Failed("the client of the store is closed", sent=False)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=self._new_socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Content-Type": "application/json"},
            )
        return self._session.post(
            url,
            data=data,
            headers=headers,
            ssl=True if self._tls is None else self._tls,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )

    def _new_socket(self, address: AddressInfo) -> socket.socket:
        family, kind, protocol = address[:3]
        new = socket.socket(family, kind, protocol)
        self._sockets.add(new)
        return new

    async def close(self) -> None:
        """End all exchanges: those under way fail.  May be repeated."""
        self.closed.set()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(asyncio.get_running_loop().time())
        if self._session is not None:
            await self._session.close()
        await self._hang_up()

    async def _hang_up(self) -> None:
        """End the connections that still wait for a frozen member to say TLS's goodbye."""
        for turn in range(10):
            left = [each for each in self._sockets if each.fileno() >= 0]
            if not left:
                break
            if turn == 0:
                for each in left:
                    with suppress(OSError):  # It may have ended in this very moment.
                        each.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0)


class Stream:
    """The messages of one watch: one JSON object a line, of any length."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._buffer = bytearray()

    async def next(self) -> Json:
        """The next message; raises Failed at the end, or if it is an error."""
        async with _failures_sorted():
            while (end := self._buffer.find(b"\n")) < 0:
                piece = await self._response.content.readany()
                if not piece:
                    raise Failed("the member ended the stream")
                self._buffer += piece
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            return _object(line)

    def close(self) -> None:
        """Drop the connection at once: TLS's goodbye would wait for a frozen member.

        May be repeated.
        """
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()
        self._response.close()


def _object(data: bytes, status: int = HTTPStatus.OK) -> Json:
    """The JSON object of an answer; Failed if it is an error, Malformed if it is nonsense."""
    try:
        answer = json.loads(data)
    except ValueError as error:
        if status != HTTPStatus.OK:
            raise Failed(f"HTTP status {status}") from error
        raise Malformed("an answer that is not JSON") from error
    if not isinstance(answer, dict):
        raise Malformed("an answer that is not an object")
    if status != HTTPStatus.OK or "error" in answer:
        raise Failed(error_text(answer))
    return answer


@asynccontextmanager
async def _failures_sorted() -> AsyncIterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise Failed("no connection in time", sent=False) from error
    except aiohttp.ClientConnectorError as error:
        raise Failed(_words(error), sent=False, refused=_is_refusal(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise Failed(_words(error), refused=_is_refusal(error)) from error
    except Malformed as error:
        raise Failed(str(error)) from error


def _words(error: BaseException) -> str:
    """The shortest true account of a transport's error."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    return str(error) or type(error).__name__


def _is_refusal(error: BaseException | None) -> bool:
    """Whether a certificate is at the bottom of it: theirs, which we don't trust, or ours.

    With TLS 1.3 the server's verdict on our certificate arrives after the handshake, as an alert
    in the place of an answer.
    """
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        if isinstance(error, ssl.SSLError) and any(
            word in (error.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False
