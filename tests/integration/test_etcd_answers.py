"""A gateway that lies, mumbles, and breaks off: all of it is unknown, and a write is sent once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from flightmode.errors import StoreUnknown
from flightmode.store.etcd import EtcdStore
from flightmode.store.port import Change, Compare, Put

HEADER = {"cluster_id": "7", "member_id": "8", "revision": "42", "raft_term": "3"}
COMPARES, OPS = (Compare("k", 5),), (Put("k", b"v"),)
DONE = {"header": HEADER, "succeeded": True, "responses": [{"response_put": {}}]}
LOST = {"header": HEADER, "responses": [{"response_range": {}}]}
EMPTY = {"header": HEADER}
DEADLINE_S = 0.4

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def says(body: object, status: int = 200) -> Answer:
    """Answers with this JSON, or with these very bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status, content_type="application/json")

    return answer


async def hangs(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def stops_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(json.dumps(DONE).encode())
    assert request.transport is not None
    request.transport.close()
    return response


class Liar:
    """An HTTP server in a member's place; it counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers: list[Answer] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return await self.answers[min(self.asked, len(self.answers)) - 1](request)

    def will(self, *answers: Answer) -> None:
        """Give these answers in turn, and the last one from then on."""
        self.answers = list(answers)
        self.asked = 0


@pytest_asyncio.fixture
async def liars() -> AsyncIterator[list[Liar]]:
    made, runners = [Liar(), Liar()], []
    for liar in made:
        app = web.Application(client_max_size=2**24)
        app.router.add_post("/{path:.*}", liar.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        liar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    for runner in runners:
        await runner.cleanup()


@pytest_asyncio.fixture
async def store(liars: list[Liar]) -> AsyncIterator[EtcdStore]:
    urls = tuple(liar.url for liar in liars)
    store = EtcdStore(urls, None, clock=time.monotonic, deadline_s=DEADLINE_S, silence_s=0.3)
    yield store
    await store.close()


NONSENSE: dict[str, Answer] = {
    "no leader": says({"error": "etcdserver: no leader", "code": 14}, 503),
    "time-out": says({"error": "etcdserver: request timed out", "code": 14}, 503),
    "leader changed": says({"message": "etcdserver: leader changed", "code": 14}, 503),
    "an error with status 200": says({"error": "etcdserver: no leader", "code": 14}),
    "too large": says({"error": "etcdserver: request is too large", "code": 3}, 400),
    "a proxy's page": says(b"<html>Bad Gateway</html>", 502),
    "a page with status 200": says(b"<html>Welcome</html>"),
    "moved": says(DONE, 302),
    "nothing": says(b""),
    "not JSON": says(b'{"header":'),
    "a list": says([]),
    "an empty object": says({}),
    "only a header": says(EMPTY),
    "unproved loss": says({**LOST, "responses": []}),
    "loss of what holds": says(
        {
            "header": HEADER,
            "responses": [
                {"response_range": {"kvs": [{"key": "aw==", "mod_revision": "5"}], "count": "1"}}
            ],
        }
    ),
    "not UTF-8": says(b"\xff\xfe{}"),
    "a connection that breaks": breaks_off,
    "half an answer": stops_in_the_middle,
    "silence": hangs,
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_whatever_is_not_an_answer_leaves_a_write_unknown_and_sent_once(
    store: EtcdStore, liars: list[Liar], what: str
) -> None:
    for liar in liars:
        liar.will(NONSENSE[what])
    started_s = time.monotonic()
    with pytest.raises(StoreUnknown):
        await store.commit(COMPARES, OPS)
    assert time.monotonic() - started_s < DEADLINE_S + 0.2
    assert sum(liar.asked for liar in liars) == 1


FINE_FOR_A_READ = {"only a header", "unproved loss", "loss of what holds"}
"""They look like the answer for a prefix without keys."""


@pytest.mark.parametrize("what", sorted(set(NONSENSE) - FINE_FOR_A_READ))
async def test_whatever_is_not_an_answer_makes_a_read_ask_the_next_one(
    store: EtcdStore, liars: list[Liar], what: str
) -> None:
    liars[0].will(NONSENSE[what])
    liars[1].will(
        says({"header": HEADER, "count": "1", "kvs": [{"key": "aw==", "mod_revision": 5}]})
    )
    assert list((await store.read("k")).entries) == ["k"]
    assert (liars[0].asked, liars[1].asked) == (1, 1)


async def test_done_is_done_and_lost_is_lost(store: EtcdStore, liars: list[Liar]) -> None:
    liars[0].will(says(DONE), says(LOST))
    assert (await store.commit(COMPARES, OPS)).succeeded
    assert not (await store.commit(COMPARES, OPS)).succeeded


@pytest.mark.parametrize(
    "header",
    [{"cluster_id": "9"}, {"revision": "41"}, {"raft_term": "2"}, {"member_id": "0"}],
)
async def test_an_answer_from_elsewhere_or_from_the_past_is_not_believed(
    store: EtcdStore, liars: list[Liar], header: dict[str, str]
) -> None:
    liars[0].will(says(EMPTY), says({"header": {**HEADER, **header}}))
    liars[1].will(says({"header": {**HEADER, **header}}))
    await store.read("k")
    with pytest.raises(StoreUnknown):
        await store.read("k")
    liars[0].will(says({**DONE, "header": {**HEADER, **header}}))
    liars[1].will(says({**DONE, "header": {**HEADER, **header}}))
    with pytest.raises(StoreUnknown):
        await store.commit(COMPARES, OPS)


async def test_of_two_reads_at_once_the_older_answer_may_arrive_last(
    store: EtcdStore, liars: list[Liar]
) -> None:
    newer = asyncio.Event()

    async def older(request: web.Request) -> web.StreamResponse:
        await newer.wait()
        return await says(EMPTY)(request)

    async def now(request: web.Request) -> web.StreamResponse:
        return await says({"header": {**HEADER, "revision": "50"}})(request)

    liars[0].will(older, now)
    liars[1].will(hangs)
    first = asyncio.create_task(store.read("k"))
    while not liars[0].asked:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    assert (await store.read("k")).revision == 50
    newer.set()
    assert (await first).revision == 42


async def test_closing_the_client_ends_the_calls_that_are_under_way(liars: list[Liar]) -> None:
    for liar in liars:
        liar.will(hangs)
    store = EtcdStore(
        tuple(liar.url for liar in liars), None, clock=time.monotonic, deadline_s=30.0
    )
    calls = [asyncio.create_task(call) for call in (store.read("k"), store.commit(COMPARES, OPS))]
    while liars[0].asked < 2:  # noqa: ASYNC110 - the server has no event for it
        await asyncio.sleep(0.001)
    await store.close()
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnknown, StoreUnknown]


# ------------------------------------------------------------------- watches


def streams(*messages: object, then: Answer = hangs) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for message in messages:
            data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
            await response.write(data)
        await then(request)
        return response

    return answer


def event(revision: int, header: dict[str, str] = HEADER) -> dict[str, Any]:
    row = {"key": "aw==", "mod_revision": str(revision), "value": "dg=="}
    return {"result": {"header": header, "events": [{"kv": row}]}}


def change(revision: int) -> tuple[Change, ...]:
    return (Change("k", b"v", revision),)


async def starts(liar: Liar, stream: AsyncIterator[tuple[Change, ...]]) -> list[str]:
    """At which revisions the watch asked for the rest, until it told revision 9."""
    seen: list[str] = []
    wanted = liar.answers

    def noting(answer: Answer) -> Answer:
        async def noted(request: web.Request) -> web.StreamResponse:
            body = json.loads(await request.content.readline())
            seen.append(body["create_request"]["start_revision"])
            return await answer(request)

        return noted

    liar.will(*map(noting, wanted))
    async with asyncio.timeout(10):
        while await anext(stream) != change(9):
            pass
    return seen


CREATED = {"result": {"header": {**HEADER, "revision": "99"}, "created": True}}
PROGRESS = {"result": {"header": {**HEADER, "revision": "99"}, "watch_id": "-1"}}


@pytest.mark.parametrize(
    "ending",
    [
        streams(CREATED, PROGRESS, event(5)),
        streams(CREATED, PROGRESS, event(5), then=breaks_off),
        streams(CREATED, event(5), {"error": {"grpc_code": 14, "message": "no leader"}}),
        streams(CREATED, event(5), {"result": {"header": HEADER, "canceled": True}}),
        streams(CREATED, event(5), b'{"result":{"header"', then=breaks_off),
        streams(CREATED, event(5), b"nonsense\n"),
        streams(CREATED, event(5), event(8, {**HEADER, "cluster_id": "9"})),
    ],
    ids=["silence", "break", "no leader", "canceled", "half a line", "nonsense", "elsewhere"],
)
async def test_a_watch_resumes_after_its_last_event_however_the_stream_ended(
    liars: list[Liar], ending: Answer
) -> None:
    liar = liars[0]
    store = EtcdStore((liar.url,), None, clock=time.monotonic, silence_s=0.3)
    try:
        liar.will(says(EMPTY))
        await store.read("k")
        liar.will(ending, streams(CREATED, event(9)))
        assert await starts(liar, store.watch("k", 3)) == ["3", "6"]
    finally:
        await store.close()


async def test_a_watch_reads_lines_that_come_in_pieces_and_several_at_once(
    liars: list[Liar], store: EtcdStore
) -> None:
    text = b"".join(json.dumps(event(i)).encode() + b"\n" for i in range(5, 10))

    async def slowly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for start in range(0, len(text), 97):
            await response.write(text[start : start + 97])
            await asyncio.sleep(0)
        await asyncio.Event().wait()
        return response

    liars[0].will(slowly)
    stream = store.watch("k", 3)
    async with asyncio.timeout(10):
        assert [await anext(stream) for _ in range(5)] == [change(i) for i in range(5, 10)]


async def test_a_compaction_that_says_less_than_we_know_does_not_move_the_watch_back(
    liars: list[Liar],
) -> None:
    liar = liars[0]
    store = EtcdStore((liar.url,), None, clock=time.monotonic, silence_s=0.3)
    compacted = {"result": {"header": HEADER, "canceled": True, "compact_revision": "2"}}
    try:
        liar.will(streams(CREATED, event(5), compacted), streams(CREATED, event(9)))
        assert await starts(liar, store.watch("k", 3)) == ["3", "6"]
    finally:
        await store.close()
