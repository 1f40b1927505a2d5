"""flightmode.toml keeps what a person wrote into it."""

import pytest

from flightmode.config import parse
from flightmode.config.edit import with_apps, with_node_exchanged
from flightmode.config.provisioning import App
from flightmode.config.reference import sample
from flightmode.config.schema import NodeSettings
from flightmode.model.member import NodeKind

SAMPLE = sample(
    {
        "cluster": {"name": "main", "bootstrap": "ams"},
        "nodes": {
            "ams": {"kind": "database", "host": "10.0.0.1"},
            "fra": {"kind": "database", "host": "10.0.0.2"},
            "wit": {"kind": "witness", "host": "10.0.0.3"},
        },
    }
)
BARE = """# mine
[cluster]
name = "main"

[nodes.ams]
host = "10.0.0.1"
postgres_port = 5433  # an old habit

[nodes.fra]
host = "10.0.0.2"

[nodes.wit]
kind = "witness"
host = "10.0.0.3"

[timing]
ttl_s = 6 # slow network
"""


@pytest.mark.parametrize("text", [SAMPLE, BARE], ids=["sample", "by hand"])
@pytest.mark.parametrize("out", ["ams", "fra", "wit"])
def test_a_node_takes_the_place_of_another(text, out):
    settings = NodeSettings(kind=NodeKind.DATABASE, host="10.9.0.1", api_port=9008)
    config = parse(with_node_exchanged(text, out, "par", settings), name="it")
    before = parse(text, name="it")
    assert config.nodes["par"] == settings
    others = {name: each for name, each in before.nodes.items() if name != out}
    assert {**config.nodes} == {**others, "par": settings}
    assert config.timing == before.timing


@pytest.mark.parametrize("out", ["ams", "fra", "wit"])
def test_comments_stay(out):
    settings = NodeSettings(kind=NodeKind.WITNESS, host="10.9.0.1")
    text = with_node_exchanged(SAMPLE, out, "par", settings)
    remarks = [line for line in SAMPLE.splitlines() if line.startswith("# ")]
    assert [line for line in text.splitlines() if line.startswith("# ")] == remarks
    assert "# slow network" in with_node_exchanged(BARE, out, "par", settings)


def test_who_made_the_database_may_go():
    settings = NodeSettings(kind=NodeKind.DATABASE, host="10.9.0.1")
    assert parse(SAMPLE, name="it").cluster.bootstrap == "ams"
    text = with_node_exchanged(SAMPLE, "ams", "par", settings)
    assert parse(text, name="it").cluster.bootstrap is None


@pytest.mark.parametrize(
    "text",
    [SAMPLE, BARE, f'{BARE}\n[provision.apps.web]\nhost = "10.0.0.9"\n', f"{BARE}\n[provision]\n"],
    ids=["sample", "nothing said", "another one", "an empty table"],
)
def test_machines_of_applications_are_added(text):
    before = parse(text, name="it").provision.apps
    config = parse(with_apps(text, {"web2": App(host="10.9.0.9")}), name="it")
    assert config.provision.apps == {**before, "web2": App(host="10.9.0.9")}
