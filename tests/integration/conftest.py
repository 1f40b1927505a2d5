"""What several files of this directory need."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.integration.postgres_server import FLAVOURS, Machine, forget_what_was_made, need


@pytest.fixture(params=FLAVOURS)
async def machine(request: pytest.FixtureRequest) -> AsyncIterator[Machine]:
    """Room for PostgreSQL servers of each version that is installed."""
    need(request.param)
    async with Machine(request.param) as made:
        yield made


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    yield
    forget_what_was_made()
