"""What a client came with is told to it at its login, before its first statement."""

from collections.abc import Iterator

import pytest

from tests.integration.proxy.stage import Stage, staged

pytestmark = pytest.mark.integration

CAME_WITH = {
    "client_encoding": "latin1",
    "application_name": "invoices",
    "options": "-c DateStyle=ISO,DMY -c TimeZone=Europe/Berlin",
}
TOLD = {
    "client_encoding": "LATIN1",
    "application_name": "invoices",
    "DateStyle": "ISO, DMY",
    "TimeZone": "Europe/Berlin",
}


@pytest.fixture(scope="module", params=["session", "transaction"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(databases={"*": {"pool_mode": request.param, "pool_size": 2}}) as stage:
        yield stage


def test_a_driver_knows_its_own_settings_before_its_first_statement(stage: Stage):
    with stage.server.connect(**CAME_WITH) as direct:
        assert {name: direct.info.parameter_status(name) for name in TOLD} == TOLD
    for _ in range(2):  # The first makes the pool, the second finds it.
        with stage.connect(**CAME_WITH) as client:
            assert {name: client.info.parameter_status(name) for name in TOLD} == TOLD
            # The very first text is in the encoding that the server takes it for.
            row = client.execute("SELECT 'é', length('é'), current_setting('client_encoding')")
            assert row.fetchone() == ("é", 1, "LATIN1")
            assert {name: client.info.parameter_status(name) for name in TOLD} == TOLD


def test_the_next_client_is_told_its_own_and_not_those_of_the_one_before(stage: Stage):
    stage.connect(**CAME_WITH).close()
    with stage.connect() as client:
        assert client.info.parameter_status("client_encoding") == "UTF8"
        assert client.info.parameter_status("application_name") == ""
        assert client.execute("SELECT 'é'").fetchone() == ("é",)


def test_what_is_not_certain_is_told_with_the_first_statement(stage: Stage):
    with stage.connect(options="-c TimeZone=europe/berlin -c DateStyle=german") as client:
        client.execute("SELECT 1")
        assert client.info.parameter_status("TimeZone") == "Europe/Berlin"
        assert client.info.parameter_status("DateStyle") == "German, DMY"
