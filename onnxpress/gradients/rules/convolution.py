"""Gradients of convolutions of any number of axes, groups, strides, dilations and padding.

The weight's gradient is one product of matrices a group: the inputs that each position of the
kernel meets, `[kernel·in, samples·outputs]`, and the outputs' gradients. The input's gradient is a
transposed convolution, cut to the input.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import CONTRIB, Attribute, Tape, Term

__all__ = ["RULES", "Window", "input_gradient", "joined", "kernel_of", "spatial_sizes", "window_of"]

_SAME = ("SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel moves over its input; a number for each spatial axis.

    Attributes:
        kernel: its sizes.
        strides: steps from output to output.
        dilations: steps from element to element of the kernel.
        begin: padding before, as int64 `[axes]`.
        end: padding behind.
        group: number of groups.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: Term
    end: Term
    group: int = 1

    @property
    def reach(self) -> list[int]:
        """Elements from the first to the last of the kernel."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    @property
    def pads(self) -> list[int] | None:
        """As the attribute, where it is known."""
        begin, end = self.begin.constant, self.end.constant
        return None if begin is None or end is None else [*begin, *end]


def window_of(call: Call, kernel: Sequence[int]) -> Window:
    """The window of a Conv or a pooling operator."""
    tape, axes = call.tape, len(kernel)
    strides = call.integers("strides", [1] * axes)
    dilations = call.integers("dilations", [1] * axes)
    pads = call.integers("pads", [0] * 2 * axes)
    automatic = call.text("auto_pad", "NOTSET")
    if automatic not in _SAME:
        if automatic == "VALID":
            pads = [0] * 2 * axes
        begin, end = tape.integers(pads[:axes]), tape.integers(pads[axes:])
    else:
        # max((⌈in/stride⌉ − 1)·stride + reach − in, 0), the odd one behind for SAME_UPPER.
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        inputs, outputs = spatial_sizes(call.x), spatial_sizes(call.y)
        spanned = (outputs - tape.integers([1])) * tape.integers(strides)
        total = (spanned + tape.integers(reach) - inputs).op("Max", tape.integers([0]))
        less = total / tape.integers([2])
        more = total - less
        begin, end = (less, more) if automatic == "SAME_UPPER" else (more, less)
    group = call.integer("group", 1)
    return Window(tuple(kernel), tuple(strides), tuple(dilations), begin, end, group)


def spatial_sizes(term: Term) -> Term:
    """Sizes of the spatial axes of `[n, c, …]`."""
    dims = term.dims
    if dims is not None and all(isinstance(dim, int) for dim in dims[2:]):
        return term.tape.integers([dim for dim in dims[2:] if isinstance(dim, int)])
    last = term.tape.integers([2**62])
    return term.shape().op("Slice", term.tape.integers([2]), last)


def joined(tape: Tape, *parts: Term | Sequence[int]) -> Term:
    """Vectors of int64 one behind the other; a constant where all are."""
    terms = [part if isinstance(part, Term) else tape.integers(part) for part in parts]
    known = [term.constant for term in terms]
    if all(part is not None for part in known):
        return tape.integers([each for part in known if part is not None for each in part])
    return terms[0].op("Concat", *terms[1:], axis=0)


def _conv(call: Call) -> Gradients | str:
    """Of y = w ⋆ x + b: dx by a transposed convolution, dw as `weight_gradient`, db = Σ dy."""
    x, w = call.input(0), call.input(1)
    kernel = kernel_of(w)
    if kernel is None:
        return "the shape of its weight is not known"
    window = window_of(call, kernel)
    dx = input_gradient(call.dy, w, x, call.y, window)
    dw = weight_gradient(x, call.dy, w, window)
    return [dx, dw, call.dy.sum([0, *range(2, 2 + len(kernel))])]


def _conv_transpose(call: Call) -> Gradients | str:
    """Of y = the transposed convolution of x: dx = w ⋆ dy; dw as of w ⋆ dy, whose gradient x is."""
    x, w = call.input(0), call.input(1)
    kernel = kernel_of(w)
    if kernel is None:
        return "the shape of its weight is not known"
    if call.text("auto_pad", "NOTSET") in _SAME or "output_shape" in call.node.attributes:
        return "its padding follows from the shape of its output"
    window = window_of(call, kernel)
    assert window.pads is not None
    dx = call.dy.op(
        "Conv",
        w,
        strides=window.strides,
        dilations=window.dilations,
        pads=window.pads,
        group=window.group,
    )
    dw = weight_gradient(call.dy, x, w, window)
    return [dx, dw, call.dy.sum([0, *range(2, 2 + len(kernel))])]


def kernel_of(w: Term) -> list[int] | None:
    """The sizes of a weight's window; `None` where they are not known."""
    sizes = [dim for dim in w.dims or () if isinstance(dim, int)]
    return sizes[2:] if w.dims is not None and len(sizes) == len(w.dims) > 2 else None


def weight_gradient(x: Term, dy: Term, w: Term, window: Window) -> Term:
    """dw[o, c, k] = Σ over samples and outputs p of dy[o, p]·x[c, p·stride + k·dilation − pad].

    Args:
        x: the convolution's input `[n, group·c, …]`.
        dy: the gradient of its output `[n, o, …]`.
        w: the weight `[o, c, …]`.
        window: of the convolution.
    """
    tape, axes = x.tape, len(window.kernel)
    outputs, inputs = _sizes(w)[:2]
    if inputs == 1 and outputs == window.group:
        # A product of one row by one column a channel is slower than the sum of products.
        sums = [
            (seen * dy).sum([0, *range(2, 2 + axes)]).reshape([-1, 1])
            for seen in _met(x, dy, window)
        ]
        joint = sums[0] if len(sums) == 1 else sums[0].op("Concat", *sums[1:], axis=1)
        return joint.reshape([outputs, 1, *window.kernel])
    swapped = [1, 0, *range(2, 2 + axes)]
    met = [
        seen.reshape([window.group, inputs, -1]) for seen in _met(x.transpose(swapped), dy, window)
    ]
    columns = met[0] if len(met) == 1 else met[0].op("Concat", *met[1:], axis=1)
    rows = dy.transpose(swapped).reshape([window.group, outputs // window.group, -1])
    product = tape.op("FusedMatMul", rows, columns, domain=CONTRIB, transB=1)
    apart = product.reshape([outputs, *window.kernel, inputs])
    return apart.transpose([0, axes + 1, *range(1, axes + 1)])


def _met(x: Term, dy: Term, window: Window) -> Iterator[Term]:
    """For each place of the kernel the inputs that it meets, an input for each output."""
    tape, axes = x.tape, len(window.kernel)
    if window.pads is None or any(window.pads):
        x = x.op("Pad", joined(tape, [0, 0], window.begin, [0, 0], window.end))
    elif set(window.strides) == {1} and set(window.kernel) == {1}:
        yield x
        return
    spatial, strides = tape.integers(range(2, 2 + axes)), tape.integers(window.strides)
    spanned = (spatial_sizes(dy) - tape.integers([1])) * strides + tape.integers([1])
    for place in itertools.product(*(range(size) for size in window.kernel)):
        offset = tape.integers([i * d for i, d in zip(place, window.dilations, strict=True)])
        yield x.op("Slice", offset, offset + spanned, spatial, strides)


def _sizes(w: Term) -> list[int]:
    return [dim for dim in w.dims or () if isinstance(dim, int)]


def input_gradient(dy: Term, w: Term, x: Term, y: Term, window: Window) -> Term:
    """dx[c, i] = Σ over o and k of dy[o, (i + pad − k·dilation)/stride]·w[o, c, k].

    Args:
        dy: the gradient of the convolution's output `[n, o, …]`.
        w: the weight `[o, c, …]`.
        x: its input, for its shape.
        y: its output, likewise.
        window: of the convolution.
    """
    tape = dy.tape
    inputs, outputs = spatial_sizes(x).constant, spatial_sizes(y).constant
    attributes: dict[str, Attribute] = {
        "strides": window.strides,
        "dilations": window.dilations,
        "group": window.group,
    }
    pads, left_over = window.pads, None
    if set(window.strides) == {1}:
        left_over = [0] * len(window.kernel)
    elif pads is not None and inputs is not None and outputs is not None:
        padded = [n + b + e for n, b, e in zip(inputs, pads, pads[len(inputs) :], strict=False)]
        spans = [(n - 1) * s for n, s in zip(outputs, window.strides, strict=True)]
        left_over = [
            n - span - reach for n, span, reach in zip(padded, spans, window.reach, strict=True)
        ]
    if pads is not None and left_over is not None:
        return dy.tape.node(
            "ConvTranspose", [dy, w], {**attributes, "pads": pads, "output_padding": left_over}
        )
    full = tape.node("ConvTranspose", [dy, w], attributes)
    cut = -window.begin
    rest = spatial_sizes(x) + window.begin - spatial_sizes(full)
    return full.op("Pad", joined(tape, [0, 0], cut, [0, 0], rest))


RULES: dict[str, Rule] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
