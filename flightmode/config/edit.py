"""Changes of a flightmode.toml that keep its comments and its order."""

from collections.abc import Mapping
from typing import cast

import tomlkit
from tomlkit.items import Table

from flightmode.config.provisioning import App
from flightmode.config.schema import NodeSettings


def with_node_exchanged(text: str, out: str, name: str, settings: NodeSettings) -> str:
    """The file with the node `name` in the place of `out`, which is in it."""
    document = tomlkit.parse(text)
    nodes = cast(Table, document["nodes"])
    rows = list(nodes.items())
    for key, table in rows:
        del nodes[key]
        if key == out:
            # The table itself stays: the comments in it belong to the file, not to a node.
            _fill(table, settings)
        nodes[name if key == out else key] = table
    cluster = cast(Table, document["cluster"])
    if cluster.get("bootstrap") == out:
        # The database was made long ago; whoever is first would make the next one.
        del cluster["bootstrap"]
    return tomlkit.dumps(document)


def with_apps(text: str, apps: Mapping[str, App]) -> str:
    """The file with these machines of applications besides its own."""
    document = tomlkit.parse(text)
    if "provision" not in document:
        document["provision"] = tomlkit.table()
    provision = cast(Table, document["provision"])
    if "apps" not in provision:
        provision["apps"] = tomlkit.table(is_super_table=True)
    for name, app in apps.items():
        table = tomlkit.table()
        table["host"] = app.host
        cast(Table, provision["apps"])[name] = table
    return tomlkit.dumps(document)


def _fill(table: Table, settings: NodeSettings) -> None:
    """Only what differs from the defaults, and what kind it is."""
    said = {
        "kind": settings.kind.value,
        **settings.model_dump(mode="json", exclude_defaults=True),
    }
    for key in list(table):
        if key not in said:
            del table[key]
    table.update(said)
