"""Refinement: layers in the order in which they feed each other."""

from bodies import if_model, nested_model

from onnxpress.layers import find_layers
from onnxpress.refinement import levels_of


def test_layers_in_bodies_are_refined_one_after_the_other() -> None:
    model = nested_model()
    levels = levels_of(model.graph, find_layers(model))
    assert [[layer.name for layer in level] for level in levels] == [["a"], ["b"]]


def test_layers_of_two_branches_are_refined_together() -> None:
    model = if_model()
    levels = levels_of(model.graph, find_layers(model))
    assert [sorted(layer.name for layer in level) for level in levels] == [["a", "c"], ["b", "d"]]
