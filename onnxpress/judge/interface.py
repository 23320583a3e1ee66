"""Whether a model takes and gives what the original does."""

from onnxpress.runtime import Session

__all__ = ["interface_problems"]


def interface_problems(original: Session, model: Session) -> list[str]:
    """Differences in names, types and ranks of inputs and outputs, in sentences."""
    problems = []
    before = {spec.name: (spec.dtype, len(spec.shape)) for spec in original.inputs}
    after = {spec.name: (spec.dtype, len(spec.shape)) for spec in model.inputs}
    if list(before) != list(after) or before != after:
        problems.append(f"inputs changed from {before} to {after} [V005]")
    outputs = [
        list(zip(s.output_names, s.output_types, s.output_ranks, strict=True))
        for s in (original, model)
    ]
    if outputs[0] != outputs[1]:
        problems.append(f"outputs changed from {outputs[0]} to {outputs[1]} [V005]")
    return problems
