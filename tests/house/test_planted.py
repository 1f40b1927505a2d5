"""A planted bug is an edit of the shipped code: whoever changes that code hears of it at once."""

import pytest

from simulator.mutants import ALL, edited
from simulator.planted import Mutant


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_a_planted_bug_fits_the_code(mutant: Mutant) -> None:
    for name, text in edited(mutant).items():
        compile(text, name, "exec")
