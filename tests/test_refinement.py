"""Refinement: layers in the order in which they feed each other."""

from bodies import if_model, nested_model
from generated import initialized

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


def test_deep_models_take_several_levels_at_once() -> None:
    steps = "  ".join(f"h{at + 1} = MatMul (h{at}, w{at})" for at in range(33))
    weights = ", ".join(f"float[4, 4] w{at}" for at in range(33))
    model = initialized(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 4] h0, {weights}) => (float[1, 4] h33) {{ {steps} }}"""
    )
    levels = levels_of(model.graph, find_layers(model))
    assert len(levels) <= 16
    assert [layer.name for level in levels for layer in level] == [f"w{at}" for at in range(33)]
