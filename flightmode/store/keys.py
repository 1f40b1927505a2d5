"""Every key that Flightmode keeps in the store: its name, who writes it, who reads it.

All of them lie below one prefix, so that several clusters may share an etcd and
one range read gives a node everything it decides by:

    /flightmode/<cluster>/
        state               the one key that decides (I4)
        config              dynamic settings
        members/<node>      what a node publishes of itself
        requests/<kind>     what a person asks for, with an expiry
        requests/<kind>/<node>
        history/<term>      one entry per change of leader, bounded
        events/<kind>       how the last request of a kind ended, bounded
        events/<kind>/<node>

Names are checked here once, so that no node name can climb into another key.
"""

import re
from typing import Final

ROOT: Final = "/flightmode/"
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")
"""What a cluster, a node, or a kind may be called: like a host name's label, in lower case."""

TERM_DIGITS: Final = 12
"""Terms are padded to this width, so that the order of keys is the order of terms."""


def _name(what: str, value: str) -> str:
    if NAME.fullmatch(value) is None or ".." in value:
        raise ValueError(f"{value!r} can't be the name of a {what}")
    return value


def prefix(cluster: str) -> str:
    """The prefix of all keys of `cluster`.  Read by every node, before each decision."""
    return f"{ROOT}{_name('cluster', cluster)}/"


def state(cluster: str) -> str:
    """The agreed state: term, leader, mode, sync set, renewal.

    Written, by comparison with its revision only: by the leader (renewal, sync set, handover)
    and by a claimant (S3).  Read by everybody.
    """
    return f"{prefix(cluster)}state"


def config(cluster: str) -> str:
    """Dynamic settings.

    Written by an operator's command, by comparison with its revision.  Read by every node.
    """
    return f"{prefix(cluster)}config"


def members(cluster: str) -> str:
    """The prefix of all members' keys.  Read by every node and by the proxies."""
    return f"{prefix(cluster)}members/"


def member(cluster: str, node: str) -> str:
    """What `node` says of itself (addresses, role, LSNs, health).

    Written by that node alone.  Read by every node: it is hearsay, never a ground for a claim.
    """
    return f"{members(cluster)}{_name('node', node)}"


def requests(cluster: str) -> str:
    """The prefix of all open requests.  Read by every node."""
    return f"{prefix(cluster)}requests/"


def request(cluster: str, kind: str, node: str | None = None) -> str:
    """A person's wish (switchover, pause, restart of `node`, …), with an expiry.

    Written by the operator's command if no request of that kind is open.  Read and, when it is
    done or has expired, deleted by the leader; one that names a node, by that node.
    """
    return _kind_and_node(requests(cluster), kind, node)


def histories(cluster: str) -> str:
    """The prefix of the history; in the order of terms.  Read by commands, not by decisions."""
    return f"{prefix(cluster)}history/"


def history(cluster: str, term: int) -> str:
    """Who became leader in `term`, and why.

    Written once, by the claimant, in the transaction that begins the term; the oldest are
    deleted by later claimants.  Read by commands.
    """
    if not 0 <= term < 10**TERM_DIGITS:
        raise ValueError(f"{term} can't be a term")
    return f"{histories(cluster)}{term:0{TERM_DIGITS}d}"


def events(cluster: str) -> str:
    """The prefix of the outcomes of requests.  Read by commands."""
    return f"{prefix(cluster)}events/"


def event(cluster: str, kind: str, node: str | None = None) -> str:
    """How the last request of that kind ended.

    Written by whoever carried it out, in the transaction that deletes the request.  Read by the
    command that waits for it.  One key per kind and node: so the number of keys is bounded.
    """
    return _kind_and_node(events(cluster), kind, node)


def _kind_and_node(below: str, kind: str, node: str | None) -> str:
    key = f"{below}{_name('kind', kind)}"
    return key if node is None else f"{key}/{_name('node', node)}"


def term_of(cluster: str, key: str) -> int | None:
    """The term of a `history` key; None if it is another key."""
    rest = key.removeprefix(histories(cluster))
    return int(rest) if rest != key and rest.isascii() and rest.isdigit() else None


def node_of(cluster: str, key: str) -> str | None:
    """The node of a `members` key; None if it is another key."""
    rest = key.removeprefix(members(cluster))
    return rest if rest != key and NAME.fullmatch(rest) else None
