"""The peer lease on the wire: questions and answers, asked, given, forged and repeated (S6)."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from flightmode.model.lease import Leased
from flightmode.pulse.datagram import Gate, sign, verify
from flightmode.pulse.promise import Promises

KEY = b"0123456789abcdef"


@dataclass
class Book:
    """Whoever asks is promised `for_s`; what comes is kept."""

    wishes: tuple[int, tuple[str, ...]] | None = None
    for_s: float | None = None
    questions: list[tuple[str, int]] = field(default_factory=list)
    taken: list[Leased] = field(default_factory=list)

    def wish(self) -> tuple[int, tuple[str, ...]] | None:
        return self.wishes

    def asked(self, node: str, term: int) -> float | None:
        self.questions.append((node, term))
        return self.for_s

    def granted(self, leased: Leased) -> None:
        self.taken.append(leased)


def side(me: str, key: bytes = KEY) -> Promises:
    return Promises(me, key, Gate({"ams", "fra"} - {me}), 7.5)


def test_a_promise_travels_there_and_back_and_counts_from_the_question() -> None:
    ams, fra = side("ams"), side("fra")
    leader, standby = Book(wishes=(3, ("fra",))), Book(for_s=5.0)
    question = ams.questions(leader, 100.0)["fra"]
    to, answer = fra.take(question, standby) or ("", b"")
    assert to == "ams"
    assert standby.questions == [("ams", 3)]
    assert ams.take(answer, leader) is None
    assert leader.taken == [Leased("fra", 3, 100.0, 5.0)]


def test_nobody_is_asked_without_a_wish() -> None:
    assert side("ams").questions(Book(), 1.0) == {}


def test_who_refuses_says_nothing() -> None:
    question = side("ams").questions(Book(wishes=(3, ("fra",))), 1.0)["fra"]
    assert side("fra").take(question, Book()) is None


def test_a_question_is_answered_once() -> None:
    fra, standby = side("fra"), Book(for_s=5.0)
    question = side("ams").questions(Book(wishes=(3, ("fra",))), 1.0)["fra"]
    assert fra.take(question, standby) is not None
    assert fra.take(question, standby) is None
    assert standby.questions == [("ams", 3)]


def test_a_question_to_somebody_else_is_not_answered() -> None:
    standby = Book(for_s=5.0)
    question = side("ams").questions(Book(wishes=(3, ("lhr",))), 1.0)["lhr"]
    assert side("fra").take(question, standby) is None
    assert standby.questions == []


def answered(nonce: str, *, node: str = "fra", for_s: object = 5.0, key: bytes = KEY) -> bytes:
    return sign({"process": "lease answer", "node": node, "nonce": nonce, "for_s": for_s}, key)


def asked() -> tuple[Promises, Book, str]:
    ams, leader = side("ams"), Book(wishes=(3, ("fra",)))
    said = verify(ams.questions(leader, 100.0)["fra"], KEY)
    assert said is not None
    return ams, leader, said["nonce"]


def test_an_answer_counts_once_and_only_to_its_own_question() -> None:
    ams, leader, nonce = asked()
    ams.take(answered("0" * 32), leader)
    ams.take(answered(nonce, node="lhr"), leader)
    ams.take(answered(nonce, key=b"another key, as long"), leader)
    assert leader.taken == []
    ams.take(answered(nonce), leader)
    ams.take(answered(nonce, for_s=500.0), leader)
    assert leader.taken == [Leased("fra", 3, 100.0, 5.0)]


def test_an_answer_to_an_earlier_life_is_worth_nothing() -> None:
    _, _, nonce = asked()
    reborn, leader = side("ams"), Book(wishes=(3, ("fra",)))
    reborn.questions(leader, 1.0)
    reborn.take(answered(nonce), leader)
    assert leader.taken == []


@given(st.one_of(st.none(), st.text(), st.integers(max_value=0), st.just(float("inf"))))
def test_an_answer_that_makes_no_sense_is_worth_nothing(for_s: object) -> None:
    ams, leader, nonce = asked()
    ams.take(answered(nonce, for_s=for_s), leader)
    assert leader.taken == []


FIELDS = ("node", "to", "started_s", "sequence", "term", "nonce")


@given(st.sampled_from(FIELDS), st.one_of(st.none(), st.booleans(), st.lists(st.integers())))
def test_a_question_that_makes_no_sense_is_not_answered(name: str, value: object) -> None:
    standby = Book(for_s=5.0)
    question = side("ams").questions(Book(wishes=(3, ("fra",))), 1.0)["fra"]
    said = verify(question, KEY)
    assert said is not None
    assert side("fra").take(sign({**said, name: value}, KEY), standby) is None
    assert standby.questions == []


@given(st.binary(max_size=300))
def test_noise_is_neither(noise: bytes) -> None:
    assert side("fra").take(noise, Book(for_s=5.0)) is None


def test_open_questions_are_bounded() -> None:
    ams, leader = side("ams"), Book(wishes=(3, ("fra",)))
    for at_s in range(1000):
        ams.questions(leader, float(at_s))
    assert len(ams._open) <= 64
