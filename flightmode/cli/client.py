"""Speaking to the nodes' APIs as an operator."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from flightmode.config import Config
from flightmode.config.derive import api_url
from flightmode.errors import FlightmodeError, NodeUnreachable, WrongAnswer, from_answer

_CONNECT_S = 2.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said."""

    node: str
    status: int
    body: Any


class Cluster:
    """The nodes' APIs.  A context manager."""

    def __init__(self, config: Config, tls: ssl.SSLContext, only: str | None = None) -> None:
        self._urls = {name: api_url(config, name) for name in config.nodes if only in (None, name)}
        timeout = aiohttp.ClientTimeout(_ANSWER_S, sock_connect=_CONNECT_S)
        connector = aiohttp.TCPConnector(ssl=tls)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    @property
    def nodes(self) -> Sequence[str]:
        """Whom it may ask."""
        return tuple(self._urls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, node: str, path: str) -> Answer:
        """Ask one node.  Raises NodeUnreachable; an error that it answers is not raised."""
        return await self._ask("GET", node, path, None)

    async def best(self, path: str, better: Callable[[Answer], float] = lambda _: 0.0) -> Answer:
        """Ask all nodes at once and take the answer of 200 with the least `better`.

        Raises the error that a node answered if all of those that did answered one, else
        NodeUnreachable.
        """
        tasks = [asyncio.create_task(self.get(node, path)) for node in self._urls]
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        answers = [each for each in replies if isinstance(each, Answer)]
        good = [each for each in answers if each.status == 200]
        if good:
            return min(good, key=better)
        if answers:
            raise error_in(answers[0])
        raise _nobody([each for each in replies if isinstance(each, BaseException)])

    async def post(self, path: str, body: object) -> Answer:
        """Ask the nodes in turn until one takes it.

        Goes on to the next node only when nothing was sent to the one before, or when that one
        cannot say; never after an unknown outcome.  Raises the error that a node answered.
        """
        failures: list[BaseException] = []
        for node in self._urls:
            try:
                answer = await self._ask("POST", node, path, body)
            except NodeUnreachable as failure:
                if not isinstance(failure.__cause__, aiohttp.ClientConnectorError):
                    raise
                failures.append(failure)
                continue
            if answer.status == 202:
                return answer
            failure_told = error_in(answer)
            if failure_told.code != "FM510":
                raise failure_told
            failures.append(failure_told)
        raise _nobody(failures)

    async def _ask(self, method: str, node: str, path: str, body: object) -> Answer:
        url = self._urls[node] + path
        try:
            async with self._session.request(method, url, json=body) as reply:
                return Answer(node, reply.status, await reply.json(content_type=None))
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            reason = str(failure) or type(failure).__name__
            raise NodeUnreachable(f"{node} does not answer at {url}: {reason}") from failure
        except ValueError as failure:
            raise WrongAnswer(f"{node} answers {url} with something else than JSON") from failure


def error_in(answer: Answer) -> FlightmodeError:
    """The error that a node answered."""
    told = answer.body.get("error") if isinstance(answer.body, dict) else None
    if not isinstance(told, dict):
        return WrongAnswer(f"{answer.node} answers {answer.status}: {str(answer.body)[:200]}")
    return from_answer(
        str(told.get("code")),
        f"{answer.node} says: {told.get('message')}",
        str(told.get("hint")),
    )


def _nobody(failures: Sequence[BaseException]) -> NodeUnreachable:
    text = "\n  ".join(("no node answers:", *(getattr(e, "message", str(e)) for e in failures)))
    return NodeUnreachable(text)
