"""Keys of nodes: what makes two of them the same to a clock, and what does not."""

import pytest
from costs_of import keys_of, mlp, model_of

from onnxpress.costs import model_digest, sizes_of


def test_names_make_no_difference_and_widths_do() -> None:
    one, other = mlp(), mlp()
    for node in other.graph:
        node.name = f"renamed/{node.name}"
        if not node.outputs[0].is_graph_output():
            node.outputs[0].name = f"renamed/{node.outputs[0].name}"
    assert model_digest(keys_of(one)) == model_digest(keys_of(other))
    assert model_digest(keys_of(one)) != model_digest(keys_of(mlp(64)))


def test_what_stands_around_a_node_is_part_of_its_key() -> None:
    template = "g (float[1, 8] x) => (float[1, 8] y) {{ h = {before}(x) y = Sigmoid(h) }}"
    behind = [keys_of(model_of(template.format(before=op)))[1] for op in ("Relu", "Tanh")]
    assert behind[0].contexts[0] == behind[1].contexts[0]
    assert behind[0].contexts[1] != behind[1].contexts[1]


def test_attributes_are_part_of_the_precise_contexts_alone() -> None:
    template = "g (float[1, 8] x) => (float[1, 8] y) {{ y = LeakyRelu<alpha = {alpha}>(x) }}"
    one, other = (keys_of(model_of(template.format(alpha=a)))[0] for a in ("0.1", "0.2"))
    assert one.contexts[:3] == other.contexts[:3]
    assert one.contexts[3:] != other.contexts[3:]


def test_what_constants_alone_make_is_folded() -> None:
    model = model_of(
        """g (float[1, 8] x) => (float[1, 8] y) <int8[8] w = {1,2,3,4,5,6,7,8}, float s = {0.5}> {
            d = DequantizeLinear(w, s)
            y = Mul(x, d)
        }"""
    )
    assert [key.operator for key in keys_of(model)] == ["Mul"]


def test_multiply_adds_and_bytes_follow_from_the_sizes() -> None:
    product, activation, last = keys_of(mlp(128), {"x": (4, 64)})
    assert [k.multiply_adds for k in (product, activation, last)] == [4 * 64 * 128, 0, 4 * 128 * 16]
    assert product.nbytes == 4 * (4 * 64 + 64 * 128 + 4 * 128)
    assert product.sizes == "4x64,64x128>4x128"


def test_a_table_is_read_as_far_as_it_is_looked_up_in() -> None:
    model = model_of(
        """g (int64[1, 3] x, float[1000, 8] table) => (float[3, 8] y)
        <int64[2] wanted = {3, 8}> {
            rows = Gather(table, x)
            y = Reshape(rows, wanted)
        }"""
    )
    assert [key.nbytes for key in keys_of(model)] == [2 * 3 * 8 * 4, 0]


def test_what_a_model_leaves_open_is_assumed_and_told() -> None:
    found = sizes_of(mlp())
    assert (dict(found.bound), found.assumed) == ({"N": 1}, True)
    assert str(found) == "N = 1"
    given = sizes_of(mlp(), {"x": (7, 64)})
    assert (dict(given.bound), given.assumed) == ({"N": 7}, False)
    picture = model_of("g (float[N, 3, H, W] x) => (float[N, 3, H, W] y) { y = Relu(x) }")
    assert dict(sizes_of(picture).bound) == {"N": 1, "H": 224, "W": 224}
    text = model_of("g (int64[N, length] x) => (int64[N, length] y) { y = Identity(x) }")
    assert dict(sizes_of(text).bound) == {"N": 1, "length": 64}


def test_dimensions_without_a_name_are_not_one() -> None:
    model = model_of("g (float[?, ?] x) => (float[?, ?] y) { y = Relu(x) }")
    assert dict(sizes_of(model).bound) == {"axis 0 of x": 1, "axis 1 of x": 64}


def test_sizes_that_a_graph_computes_are_followed() -> None:
    model = model_of(
        """g (float[N, length, 32] x) => (float[a, b, c, d] y)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[2] heads = {4, 8}> {
            shape = Shape(x)
            n = Gather(shape, zero)
            l = Gather(shape, one)
            wanted = Concat<axis = 0>(n, l, heads)
            r = Reshape(x, wanted)
            y = Transpose<perm = [0, 2, 1, 3]>(r)
        }"""
    )
    sizes = sizes_of(model, {"x": (2, 10, 32)})
    assert sizes.of(model.graph.outputs[0]) == (2, 4, 10, 8)


def test_bodies_are_told_apart_from_the_graph_around_them() -> None:
    model = model_of(
        """g (bool c, float[1, 8] x) => (float[1, 8] y) {
            y = If (c) <
                then_branch = a () => (float[1, 8] p) { p = Relu(x) },
                else_branch = b () => (float[1, 8] q) { q = Relu(x) }
            >
        }"""
    )
    around = keys_of(model_of("g (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }"))[0]
    found = keys_of(model)
    assert sorted(key.operator for key in found) == ["If", "Relu", "Relu"]
    inside = [key for key in found if key.operator == "Relu"]
    assert all(key.repeated for key in inside)
    assert not around.repeated
    assert inside[0].contexts[0] != around.contexts[0]


@pytest.mark.parametrize("size", [1 << 40])
def test_a_tensor_of_any_size_is_not_made(size: int) -> None:
    model = model_of(
        f"""g (float[N, 1] x) => (float[a, b] y) <int64[2] wanted = {{1, {size}}}> {{
            y = Expand(x, wanted)
        }}"""
    )
    assert keys_of(model)[0].operator == "Expand"
