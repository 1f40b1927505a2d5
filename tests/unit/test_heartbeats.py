"""What is taken for a heartbeat, and what for listening."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightmode.pulse.datagram import Beat, Gate, decode, encode
from flightmode.pulse.ears import GAP_S, Channel, Ears

KEY = b"0123456789abcdef"
BEAT = Beat("ams", Channel.AGENT_UDP, 17.25, 3)


def test_a_heartbeat_survives_the_journey() -> None:
    assert decode(encode(BEAT, KEY), KEY) == BEAT
    assert decode(encode(BEAT, KEY) + b"\n", KEY) == BEAT


def test_a_heartbeat_of_the_fence_is_one() -> None:
    body = json.dumps({"node": "ams", "term": 3, "started_s": 1.5, "sequence": 9}).encode()
    tag = hmac.new(KEY, body, hashlib.sha256).hexdigest().encode()
    assert decode(body + b"\n" + tag, KEY) == Beat("ams", Channel.FENCE, 1.5, 9)


def test_a_heartbeat_under_another_key_is_none() -> None:
    assert decode(encode(BEAT, b"another key, as long"), KEY) is None


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_heartbeat_with_one_byte_changed_is_none(place: int, change: int) -> None:
    datagram = bytearray(encode(BEAT, KEY))
    datagram[place % len(datagram)] ^= change
    assert decode(bytes(datagram), KEY) is None


@given(st.binary(max_size=2000))
def test_noise_is_no_heartbeat(noise: bytes) -> None:
    assert decode(noise, KEY) is None


@pytest.mark.parametrize(
    "said",
    [
        [],
        {},
        {"node": 3, "started_s": 1, "sequence": 1},
        {"node": "ams", "started_s": "x", "sequence": 1},
        {"node": "ams", "started_s": 1, "sequence": 1.5},
        {"node": "ams", "started_s": 1, "sequence": True},
        {"node": "ams", "started_s": 1, "sequence": 1, "process": "proxy"},
        {"node": "ams", "started_s": 1, "sequence": 1, "process": ["agent udp"]},
        {"node": "ams", "started_s": float("nan"), "sequence": 1},
    ],
)
def test_what_is_signed_and_makes_no_sense_is_none(said: object) -> None:
    body = json.dumps(said).encode()
    tag = hmac.new(KEY, body, hashlib.sha256).hexdigest().encode()
    assert decode(body + b"\n" + tag, KEY) is None


# ------------------------------------------------------------------ replays


def admits(gate: Gate, sequence: int, *, started_s: float = 5.0, kind: str = "fence udp") -> bool:
    return gate.admits("ams", kind, started_s, sequence)


def test_what_is_sent_again_says_nothing_new() -> None:
    gate = Gate({"ams"})
    assert [admits(gate, n) for n in (1, 3, 3, 2, 4)] == [True, True, False, False, True]


def test_a_process_that_begins_again_is_heard_also_after_a_reboot() -> None:
    gate = Gate({"ams"})
    assert admits(gate, 9000, started_s=1e6)
    assert admits(gate, 1, started_s=4.0)
    assert not admits(gate, 9000, started_s=1e6)


def test_each_process_and_channel_counts_for_itself() -> None:
    gate = Gate({"ams"})
    assert admits(gate, 7)
    assert admits(gate, 7, kind="agent udp")


def test_a_stranger_is_not_admitted() -> None:
    assert not Gate({"ams"}).admits("who", "fence udp", 5.0, 1)


def test_the_memory_of_lives_is_bounded() -> None:
    gate = Gate({"ams"})
    for life in range(1000):
        assert admits(gate, 1, started_s=float(life))
    assert sum(len(lives) for lives in gate._lives.values()) <= 8


# ------------------------------------------------------------------ attention


def ticked(ears: Ears, begin_s: float, end_s: float) -> None:
    at_s = begin_s
    while at_s <= end_s:
        ears.tick(at_s)
        at_s += 0.1


def test_who_is_served_all_the_time_is_attentive_since_the_beginning() -> None:
    ears = Ears(("ams",))
    ticked(ears, 10.0, 20.0)
    listening = ears.listening(20.05)
    assert (listening.since_s, listening.attentive_since_s) == (10.0, 10.0)


def test_a_gap_begins_the_attention_anew() -> None:
    ears = Ears(("ams",))
    ticked(ears, 10.0, 12.0)
    ticked(ears, 13.0, 14.0)
    assert ears.listening(14.0).attentive_since_s == 13.0


def test_a_gap_that_has_not_ended_is_one() -> None:
    """The decision may come before the tick that is late."""
    ears = Ears(("ams",))
    ticked(ears, 10.0, 12.0)
    later_s = 12.0 + GAP_S + 0.2
    assert ears.listening(later_s).attentive_since_s == later_s


def test_who_has_stopped_does_not_listen() -> None:
    ears = Ears(("ams",))
    ears.tick(10.0)
    ears.stopped()
    assert ears.listening(10.1).since_s is None


def test_what_is_heard_is_kept_by_node_and_channel() -> None:
    ears = Ears(("ams", "fra"))
    for at_s, channel in enumerate(Channel):
        ears.hear("ams", channel, float(at_s))
    ears.hear("who", Channel.FENCE, 9.0)
    heard = ears.listening(10.0).of("ams")
    assert heard is not None
    assert heard.all_known == (0.0, 1.0, 2.0)
    assert ears.listening(10.0).of("who") is None
    fra = ears.listening(10.0).of("fra")
    assert fra is not None
    assert fra.all_known is None
