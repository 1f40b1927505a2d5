"""Every kind of fault, by name."""

from types import MappingProxyType

from chaos.nemeses import disk, machines, network, people, processes, store
from chaos.nemeses.scene import Nemesis

BY_NAME = MappingProxyType(
    {
        nemesis.name: nemesis
        for room in (machines, network, processes, disk, store, people)
        for nemesis in room.NEMESES
    }
)

__all__ = ["BY_NAME", "Nemesis"]
