"""flightmode.toml: one typed page from which the parser, the sample and the reference are made.

Pure: text goes in, a frozen `Config` or a `ConfigInvalid` that lists every mistake comes out.
"""

from flightmode.config.derive import Locations, etcd_endpoints, locations_of, nodes_of, policy_of
from flightmode.config.parse import parse
from flightmode.config.schema import Config

__all__ = [
    "Config",
    "Locations",
    "etcd_endpoints",
    "locations_of",
    "nodes_of",
    "parse",
    "policy_of",
]
