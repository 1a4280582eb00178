"""Strongly connected components, dependencies first: which values of a nest form a cycle.

0: carry(next 1)   1: add 0 2   2: load     ->   [2], [0, 1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence


def components(nodes: Sequence[int], needs: Callable[[int], Iterable[int]]) -> list[list[int]]:
    """Tarjan's algorithm (without recursion) on the graph restricted to `nodes`.

    A component comes after all those that it needs; its members are in ascending order.
    """
    inside = set(nodes)
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []

    def enter(node: int) -> tuple[int, Iterator[int]]:
        order[node] = low[node] = len(order)
        stack.append(node)
        on_stack.add(node)
        return node, iter([n for n in needs(node) if n in inside])

    for root in nodes:
        path = [] if root in order else [enter(root)]
        while path:
            node, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == order[node]:
                    found.append(_pop(node, stack, on_stack))
            elif following not in order:
                path.append(enter(following))
            elif following in on_stack:
                low[node] = min(low[node], order[following])
    return found


def _pop(root: int, stack: list[int], on_stack: set[int]) -> list[int]:
    component = []
    while True:
        node = stack.pop()
        on_stack.discard(node)
        component.append(node)
        if node == root:
            return sorted(component)
