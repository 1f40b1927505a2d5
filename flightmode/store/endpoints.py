"""Which etcd member to ask next, and what its answers may not fall behind.

Intuition: stay with the member that answered last; leave it at the first doubt;
come back to the preferred one (usually on this host) only after it has proved
itself by answering a read, so that no write is risked on a member that may
still be frozen.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flightmode.store.wire import Header, Malformed


class Endpoints:
    """The order in which to try the members.  No clock of its own: `now_s` is passed in."""

    def __init__(self, urls: tuple[str, ...], probe_every_s: float) -> None:
        if not urls or len(set(urls)) != len(urls):
            raise ValueError("a store needs one endpoint at least, and each once")
        self.urls = urls
        self._best = urls[0]
        self._failed: dict[str, None] = {}
        self._probe_every_s = probe_every_s
        self._probe_at_s = float("-inf")

    def order(self) -> tuple[str, ...]:
        """All endpoints: the best, the unsuspicious, those that failed (the latest last)."""
        rest = [url for url in self.urls if url != self._best]
        fine = [url for url in rest if url not in self._failed]
        failed = [url for url in self._failed if url != self._best]
        return (self._best, *fine, *failed)

    def prefer(self, url: str, now_s: float) -> None:
        """`url` answered first: it is the best now."""
        self._failed.pop(url, None)
        self._leave(now_s, url)

    def failed(self, url: str, now_s: float) -> None:
        """`url` refused, timed out, or said something that can't be: ask another one next."""
        self._failed.pop(url, None)
        self._failed[url] = None
        if url == self._best:
            fine = (each for each in self.urls if each not in self._failed)
            self._leave(now_s, next(fine, next(iter(self._failed))))

    def _leave(self, now_s: float, url: str) -> None:
        if self._best == self.urls[0] != url:
            self._probe_at_s = now_s + self._probe_every_s
        self._best = url

    def turns(self, now_s: float, alone_s: float) -> Iterator[tuple[str, float]]:
        """Endless: whom to ask a read next, and how long to wait before asking another one too.

        Now and then the preferred endpoint comes first, with half of the time to itself (it has to
        connect anew): if it is back, it answers, and so becomes the best again.
        """
        if self._best != self.urls[0] and now_s >= self._probe_at_s:
            self._probe_at_s = now_s + self._probe_every_s
            yield self.urls[0], alone_s / 2
        while True:
            for url in self.order():
                yield url, alone_s


@dataclass(frozen=True, slots=True)
class Floor:
    """What was known of the cluster when a request left; its answer can't be older (R8).

    A member that was frozen or cut off and still answers from its past would
    otherwise be believed.  The price: after etcd was restored from a backup (its
    revisions go back), the clients have to be restarted.
    """

    cluster_id: int = 0
    raft_term: int = 0
    revision: int = 0

    def check(self, header: Header) -> None:
        """Raise Malformed if the answer is from another cluster or from the past."""
        if self.cluster_id not in (0, header.cluster_id):
            raise Malformed("the member belongs to another etcd cluster")
        if header.raft_term < self.raft_term:
            raise Malformed(f"the answer is of raft term {header.raft_term} < {self.raft_term}")
        if 0 < header.revision < self.revision:
            raise Malformed(f"the answer is of revision {header.revision} < {self.revision}")

    def raised(self, header: Header) -> "Floor":
        """The floor for requests that leave from now on."""
        return Floor(
            self.cluster_id or header.cluster_id,
            max(self.raft_term, header.raft_term),
            max(self.revision, header.revision),
        )
