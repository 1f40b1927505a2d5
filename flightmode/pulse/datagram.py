"""A heartbeat as bytes: a JSON object, a newline, the HMAC-SHA256 of the object in hexadecimal.

The same form as the fence's own (rust/fence/src/heartbeat.rs), which knows no `process`.
"""

import hmac
import json
import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flightmode.pulse.ears import Channel

MAX_BYTES: Final = 1024
KEY_MIN: Final = 16
"""As the fence has it."""
_LIVES: Final = 8
_PROCESSES: Final = {
    Channel.AGENT_UDP.value: Channel.AGENT_UDP,
    Channel.AGENT_TCP.value: Channel.AGENT_TCP,
    None: Channel.FENCE,
}


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat."""

    node: str
    channel: Channel
    started_s: float
    """When the sending process began, by its clock: tells its lives apart."""
    sequence: int


def encode(beat: Beat, key: bytes) -> bytes:
    """An agent's heartbeat."""
    said = {
        "node": beat.node,
        "process": beat.channel.value,
        "started_s": beat.started_s,
        "sequence": beat.sequence,
    }
    return sign(said, key)


def decode(datagram: bytes, key: bytes) -> Beat | None:
    """None: it is not signed with our key, or is no heartbeat."""
    said = verify(datagram, key)
    if said is None:
        return None
    try:
        channel = _PROCESSES[said.get("process")]
        node, started_s, sequence = said["node"], float(said["started_s"]), said["sequence"]
    except (ValueError, KeyError, TypeError):
        return None
    fits = isinstance(node, str) and type(sequence) is int and math.isfinite(started_s)
    return Beat(node, channel, started_s, sequence) if fits else None


def sign(said: Mapping[str, object], key: bytes) -> bytes:
    """An object as it travels."""
    body = json.dumps(said, separators=(",", ":")).encode()
    return body + b"\n" + _tag(body, key)


def verify(datagram: bytes, key: bytes) -> dict[str, Any] | None:
    """The object; None: it is not signed with our key, or is none."""
    body, _, tag = datagram.rstrip(b"\n").partition(b"\n")
    if len(datagram) > MAX_BYTES or not hmac.compare_digest(_tag(body, key), tag):
        return None
    try:
        said = json.loads(body)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _tag(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256").hex().encode()


class Gate:
    """Lets each heartbeat in once: what is recorded and sent again says nothing new.

    A process begins again at sequence 1 under another `started_s`, which is of the machine's
    uptime and so does not grow over reboots: lives are told apart, not ordered.  A whole life
    that was recorded before this node began to listen can be played to it once; that can hide
    a loss until the ttl is over, and no more, because heartbeats only inform.
    """

    def __init__(self, nodes: Collection[str]) -> None:
        self._nodes = nodes
        self._lives: dict[tuple[str, str], OrderedDict[float, int]] = {}

    def admits(self, node: str, kind: str, started_s: float, sequence: int) -> bool:
        """Whether it is new, and from a node that we know."""
        if node not in self._nodes:
            return False
        lives = self._lives.setdefault((node, kind), OrderedDict())
        if sequence <= lives.get(started_s, 0):
            return False
        lives[started_s] = sequence
        lives.move_to_end(started_s)
        if len(lives) > _LIVES:
            lives.popitem(last=False)
        return True
