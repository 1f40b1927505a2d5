"""The peer lease on the wire: a question, and its answer, signed as heartbeats are (S6)."""

import math
import secrets
from collections import OrderedDict
from dataclasses import asdict, dataclass
from typing import Any, Final

from flightmode.model.lease import Leased
from flightmode.pulse.datagram import Gate, sign, verify
from flightmode.pulse.port import Leases

_QUESTIONS: Final = 64
_ASK: Final = "lease question"
_ANSWER: Final = "lease answer"


@dataclass(frozen=True, slots=True)
class Question:
    """`node` leads `term` and asks `to` not to claim."""

    node: str
    to: str
    started_s: float
    sequence: int
    term: int
    nonce: str
    """Nobody can guess it, so an answer to another question is never taken for one to this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`node` promises not to claim for `for_s` from a moment after the question."""

    node: str
    nonce: str
    for_s: float


class Promises:
    """Both sides of the exchange, without a socket."""

    def __init__(self, me: str, key: bytes, gate: Gate, started_s: float) -> None:
        self._me = me
        self._key = key
        self._gate = gate
        self._started_s = started_s
        self._sequence = 0
        self._open: OrderedDict[str, tuple[str, int, float]] = OrderedDict()

    def questions(self, leases: Leases, now_s: float) -> dict[str, bytes]:
        """What is to be sent to whom now."""
        wish = leases.wish()
        if wish is None:
            return {}
        term, nodes = wish
        return {to: self._question(to, term, now_s) for to in nodes}

    def _question(self, to: str, term: int, now_s: float) -> bytes:
        self._sequence += 1
        nonce = secrets.token_hex(16)
        self._open[nonce] = (to, term, now_s)
        if len(self._open) > _QUESTIONS:
            self._open.popitem(last=False)
        question = Question(self._me, to, self._started_s, self._sequence, term, nonce)
        return sign({"process": _ASK, **asdict(question)}, self._key)

    def take(self, datagram: bytes, leases: Leases) -> tuple[str, bytes] | None:
        """Take in whatever it is; an answer that is to be sent, and to whom."""
        said = verify(datagram, self._key)
        if said is None:
            return None
        match said.pop("process", None):
            case "lease question":
                return self._answer(said, leases)
            case "lease answer":
                self._answered(said, leases)
        return None

    def _answer(self, said: dict[str, Any], leases: Leases) -> tuple[str, bytes] | None:
        question = _question(said)
        if question is None or question.to != self._me:
            return None
        # A recorded question must not hold us back from a claim.
        new = self._gate.admits(question.node, _ASK, question.started_s, question.sequence)
        for_s = leases.asked(question.node, question.term) if new else None
        if for_s is None:
            return None
        answer = Answer(self._me, question.nonce, for_s)
        return question.node, sign({"process": _ANSWER, **asdict(answer)}, self._key)

    def _answered(self, said: dict[str, Any], leases: Leases) -> None:
        nonce, node, for_s = said.get("nonce"), said.get("node"), said.get("for_s")
        asked = self._open.get(nonce) if isinstance(nonce, str) else None
        if asked is None or asked[0] != node or not isinstance(for_s, (int, float)):
            return
        if not math.isfinite(for_s) or for_s <= 0:
            return
        del self._open[str(nonce)]
        to, term, sent_s = asked
        leases.granted(Leased(to, term, sent_s, float(for_s)))


def _question(said: dict[str, Any]) -> Question | None:
    kinds = {"node": str, "to": str, "sequence": int, "term": int, "nonce": str}
    if any(type(said.get(name)) is not kind for name, kind in kinds.items()):
        return None
    started_s = said.get("started_s")
    if type(started_s) is not float or not math.isfinite(started_s):
        return None
    fields = {name: said[name] for name in kinds}
    return Question(started_s=started_s, **fields)
