"""Circles in a graph.  R. Tarjan, "Depth-first search and linear graph algorithms" (1972)."""

from collections.abc import Iterable, Iterator, Sequence


def components(edges: Sequence[Iterable[int]]) -> list[list[int]]:
    """The groups of two and more vertices that all reach each other.

    `edges[a]` has the vertices that `a` leads to.  Without recursion: histories are long.
    """
    finder = _Finder(edges)
    for vertex in range(len(edges)):
        if vertex not in finder.number:
            finder.visit(vertex)
    return finder.found


class _Finder:
    def __init__(self, edges: Sequence[Iterable[int]]) -> None:
        self.edges = edges
        self.number: dict[int, int] = {}
        self.low: dict[int, int] = {}
        self.open: list[int] = []
        self.is_open: set[int] = set()
        self.found: list[list[int]] = []

    def visit(self, root: int) -> None:
        path: list[tuple[int, Iterator[int]]] = [self._enter(root)]
        while path:
            vertex, rest = path[-1]
            for next_ in rest:
                if next_ not in self.number:
                    path.append(self._enter(next_))
                    break
                if next_ in self.is_open:
                    self.low[vertex] = min(self.low[vertex], self.number[next_])
            else:
                path.pop()
                if path:
                    parent = path[-1][0]
                    self.low[parent] = min(self.low[parent], self.low[vertex])
                self._leave(vertex)

    def _enter(self, vertex: int) -> tuple[int, Iterator[int]]:
        self.number[vertex] = self.low[vertex] = len(self.number)
        self.open.append(vertex)
        self.is_open.add(vertex)
        return vertex, iter(self.edges[vertex])

    def _leave(self, vertex: int) -> None:
        if self.low[vertex] != self.number[vertex]:
            return
        group: list[int] = []
        while not group or group[-1] != vertex:
            group.append(self.open.pop())
            self.is_open.discard(group[-1])
        if len(group) > 1:
            self.found.append(group)
