"""Gradients of products of matrices."""

from onnxpress.einsum import Equation
from onnxpress.gradients.call import Call, Gradients, Rule
from onnxpress.gradients.tape import CONTRIB, Term

__all__ = ["RULES", "product_of"]


def _gemm(call: Call) -> Gradients:
    """Of Y = α·A'B' + β·C: dA' = α·dY·B'ᵀ, dB' = α·A'ᵀ·dY, dC = β·dY.

    A' and B' are turned by transA and transB.
    """
    a, b, dy = call.input(0), call.input(1), call.dy
    alpha = call.number("alpha", 1.0)
    turned_a, turned_b = call.integer("transA", 0), call.integer("transB", 0)

    def product(left: Term, right: Term, left_turned: int, right_turned: int) -> Term:
        return left.op("Gemm", right, alpha=alpha, transA=left_turned, transB=right_turned)

    da = product(b, dy, turned_b, 1) if turned_a else product(dy, b, 0, 1 - turned_b)
    db = product(dy, a, 1, turned_a) if turned_b else product(a, dy, 1 - turned_a, 0)
    c = call.optional(2)
    if c is None:
        return [da, db]
    beta = call.number("beta", 1.0)
    dc = dy.sum_to(c, call.y)
    return [da, db, dc if beta == 1.0 else dc * beta]


def _matmul(call: Call) -> Gradients | str:
    """Of Y = AB: dA = dY·Bᵀ, dB = Aᵀ·dY, summed over repeated matrices; vectors as in NumPy."""
    a, b, dy = call.input(0), call.input(1), call.dy
    if a.rank is None or b.rank is None:
        return "the number of axes of its inputs is not known"
    tape = call.tape
    if b.rank == 2 and a.rank >= 2:
        # All rows at once, instead of one product a matrix and their sum.
        rows = a.reshape(tape.integers([-1]).op("Concat", a.size(-1), axis=0))
        outputs = dy.reshape(tape.integers([-1]).op("Concat", b.size(1), axis=0))
        return [product_of(dy, b, turn_right=True), rows.op("Gemm", outputs, transA=1)]
    left = a.op("Unsqueeze", tape.integers([0])) if a.rank == 1 else a
    right = b.op("Unsqueeze", tape.integers([1])) if b.rank == 1 else b
    if b.rank == 1:
        dy = dy.op("Unsqueeze", tape.integers([-1]))
    if a.rank == 1:
        dy = dy.op("Unsqueeze", tape.integers([-2]))
    da, db = product_of(dy, right, turn_right=True), product_of(left, dy, turn_left=True)
    if a.dims is None or b.dims is None or a.dims[:-2] != b.dims[:-2] or None in a.dims[:-2]:
        da, db = da.sum_to(left, da), db.sum_to(right, db)
    return [da.like(a) if a.rank == 1 else da, db.like(b) if b.rank == 1 else db]


def product_of(
    left: Term, right: Term, *, turn_left: bool = False, turn_right: bool = False
) -> Term:
    """A product of matrices, either of them turned."""
    return left.tape.op(
        "FusedMatMul",
        left,
        right,
        domain=CONTRIB,
        transA=int(turn_left),
        transB=int(turn_right),
    )


def _einsum(call: Call) -> Gradients | str:
    """Of y = einsum(A, B, …): dA = einsum(dy, B, … → A's labels); what A alone sums, repeated."""
    equation = Equation.of(call.node)
    if equation is None:
        return "its equation does not fit its inputs"
    given = [*equation.operands, equation.output]
    if any("..." in labels for labels in given):
        return "its equation has an ellipsis"
    if any(len(set(labels)) != len(labels) for labels in given):
        return "its equation takes a diagonal"
    found = []
    for index, own in enumerate(equation.operands):
        others = [call.input(n) for n in range(len(equation.operands)) if n != index]
        labels = [text for n, text in enumerate(equation.operands) if n != index]
        known = {label for text in (equation.output, *labels) for label in text}
        left = ",".join([equation.output, *labels])
        right = "".join(label for label in own if label in known)
        term = call.tape.node("Einsum", [call.dy, *others], {"equation": f"{left}->{right}"})
        alone = [axis for axis, label in enumerate(own) if label not in known]
        if alone:
            term = term.op("Unsqueeze", call.tape.integers(alone)).expand(call.input(index))
        found.append(term)
    return found


RULES: dict[str, Rule] = {
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
