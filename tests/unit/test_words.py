"""Every verb can be said."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightmode.decide.words import in_words
from flightmode.model.action import Action
from flightmode.model.lsn import Lsn

st.register_type_strategy(Lsn, st.integers(0, 2**64 - 1).map(Lsn))


@pytest.mark.parametrize("verb", get_args(Action), ids=lambda verb: verb.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_every_verb_is_a_sentence(verb: type, data: st.DataObject) -> None:
    sentence = in_words(data.draw(st.from_type(verb)))
    assert len(sentence) > 5
    assert verb.__name__ not in sentence
