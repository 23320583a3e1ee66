"""Cut a graph into blocks where few bytes cross: a shortest path over the places between nodes.

Nodes stand in topological order. A tensor crosses every place between the node that computes it
and the last that reads it, bodies included; what it takes there is its size. Inputs of the model
and constants cross nothing: whoever reads them has them. Of all ways to cut into blocks of at most
so many bytes of weights, the one over which the fewest bytes cross is found by dynamic programming
with a sliding minimum, in time linear in the nodes and what they read.

    best(j) = cost(j) + min { best(i) : i < j, weights(i … j) ≤ budget }

What no block can hand over (sequences, optionals, texts, maps, tensors of unknown type) is cut
nowhere on its way; a node with bodies is one node.
"""

import itertools
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxpress.blocks.reading import constant_values, node_weights, reads
from onnxpress.blocks.sizes import can_cross, constant_bytes, tensor_bytes, with_types

__all__ = ["Block", "Cut", "cut"]

WIDEST_BYTES = 64_000_000
"""Of one sample: where more crosses, to compute it again is better than to keep it."""


@dataclass(frozen=True, slots=True)
class Block:
    """Nodes that follow one another.

    Attributes:
        start: place of its first node.
        stop: of the first node behind it.
        inputs: names of tensors that other blocks hand it.
        outputs: names of tensors that it hands on, or that are outputs of the model.
        weight_bytes: of the constants its nodes read, each counted once.
    """

    start: int
    stop: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A graph in blocks.

    Attributes:
        blocks: in the order in which they run.
        typed: the model, with types and shapes inferred where it does not tell them.
        crossing_bytes: over all places cut, of one sample.
        note: why blocks are larger than the budget, in a sentence; empty where none is.
    """

    blocks: tuple[Block, ...]
    typed: ir.Model
    crossing_bytes: int
    note: str = ""


def cut(
    model: ir.Model,
    budget_bytes: int,
    *,
    sizes: Mapping[str, int] | None = None,
    widest_bytes: int = WIDEST_BYTES,
) -> Cut:
    """The blocks of a model's main graph.

    Args:
        model: not changed.
        budget_bytes: of weights in a block; a node that has more is a block of its own.
        sizes: bytes of tensors by name, where shapes do not tell them (`observed_bytes`).
        widest_bytes: no cut is made where more crosses.
    """
    typed = with_types(model)
    nodes = list(typed.graph)
    constants = constant_values(typed.graph)
    costs = _costs(typed.graph, constants, sizes or {})
    allowed = [place for place in range(1, len(nodes)) if 0 <= costs[place] <= widest_bytes]
    places = [0, *allowed, len(nodes)] if nodes else [0, 0]
    loads = [
        {
            value: constant_bytes(value)
            for node in nodes[a:b]
            if not constants.issuperset(node.outputs)
            for value in node_weights(node, constants)
        }
        for a, b in itertools.pairwise(places)
    ]
    chosen = _shortest([costs[place] for place in places], loads, budget_bytes)
    weights = [_together(loads[a:b]) for a, b in itertools.pairwise(chosen)]
    stops = [places[index] for index in chosen]
    blocks = _blocks(typed.graph, constants, stops, weights)
    return Cut(
        blocks,
        typed,
        sum(costs[place] for place in stops[1:-1]),
        _note(blocks, budget_bytes, len(allowed), widest_bytes),
    )


def _costs(graph: ir.Graph, constants: frozenset[ir.Value], sizes: Mapping[str, int]) -> list[int]:
    """Bytes that cross before each node and behind the last; -1 where something cannot."""
    last: dict[ir.Value, int] = {}
    made: dict[ir.Value, int] = {}
    for place, node in enumerate(graph):
        last.update(dict.fromkeys(reads(node), place))
        made.update(dict.fromkeys(node.outputs, place))
    steps, barred = [0] * (len(graph) + 2), [0] * (len(graph) + 2)
    for value, place in made.items():
        if value not in constants and value in last:
            crossing = can_cross(value)
            change = steps if crossing else barred
            amount = (sizes.get(value.name or "") or tensor_bytes(value)) if crossing else 1
            change[place + 1] += amount
            change[last[value] + 1] -= amount
    costs, held, blocked = [], 0, 0
    for step, bar in zip(steps[:-1], barred, strict=False):
        held, blocked = held + step, blocked + bar
        costs.append(-1 if blocked else held)
    return costs


def _shortest(
    costs: Sequence[int], loads: Sequence[Mapping[ir.Value, int]], budget: int
) -> list[int]:
    """Which places to cut: indices from 0 to the last, with the least sum of costs.

    Args:
        costs: of the places.
        loads: what is read between each and the next, in bytes.
        budget: of a block; what lies between two places is never divided.
    """
    best: list[tuple[int, int]] = [(0, 0)]
    came: list[int] = [0]
    lowest: deque[int] = deque([0])
    inside: Counter[ir.Value] = Counter()
    first = held = 0
    for here in range(1, len(costs)):
        for value, nbytes in loads[here - 1].items():
            held += 0 if inside[value] else nbytes
            inside[value] += 1
        while held > budget and first < here - 1:
            for value, nbytes in loads[first].items():
                inside[value] -= 1
                held -= 0 if inside[value] else nbytes
            first += 1
        while lowest[0] < first:
            lowest.popleft()
        bytes_before, blocks_before = best[lowest[0]]
        came.append(lowest[0])
        # Of ways that cost the same, the one of fewer blocks.
        best.append((bytes_before + max(costs[here], 0), blocks_before + 1))
        while lowest and best[lowest[-1]] > best[here]:
            lowest.pop()
        lowest.append(here)
    chosen = [len(costs) - 1]
    while chosen[-1]:
        chosen.append(came[chosen[-1]])
    return chosen[::-1]


def _together(loads: Sequence[Mapping[ir.Value, int]]) -> int:
    return sum({value: size for load in loads for value, size in load.items()}.values())


def _blocks(
    graph: ir.Graph, constants: frozenset[ir.Value], stops: Sequence[int], weights: Sequence[int]
) -> tuple[Block, ...]:
    """What crosses between which blocks, in one walk over the nodes."""
    number = [0] * len(graph)
    for index, (start, stop) in enumerate(itertools.pairwise(stops)):
        number[start:stop] = [index] * (stop - start)
    inputs: list[dict[str, None]] = [{} for _ in weights]
    outputs: list[dict[str, None]] = [{} for _ in weights]
    home: dict[ir.Value, int] = {}
    for place, node in enumerate(graph):
        here = number[place]
        home.update(dict.fromkeys(node.outputs, here))
        for value in reads(node):
            made = home.get(value, here)
            if made != here and value not in constants:
                inputs[here][value.name or ""] = None
                outputs[made][value.name or ""] = None
    for value in graph.outputs:
        if not value.is_graph_input():
            outputs[home.get(value, len(weights) - 1)][value.name or ""] = None
    return tuple(
        Block(start, stop, tuple(sorted(given)), tuple(sorted(made)), weight)
        for start, stop, given, made, weight in zip(
            stops, stops[1:], inputs, outputs, weights, strict=False
        )
    )


def _note(blocks: Sequence[Block], budget: int, allowed: int, widest: int) -> str:
    largest = max(block.weight_bytes for block in blocks)
    if largest <= budget:
        return ""
    if not allowed:
        return (
            f"the graph is one block of {largest:,} bytes of weights: everywhere in it more than "
            f"{widest:,} bytes cross, or what no block can hand over, such as a sequence"
        )
    return f"a block holds {largest:,} bytes of weights, more than {budget:,}: it cannot be divided"
