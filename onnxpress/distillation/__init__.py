"""Train a student towards its teacher, as ONNX graphs that onnxruntime runs.

- `matching`: whether teacher and student match; samples for each purpose.
- `parameters`, `rounded`, `lookups`, `plain`: what is trained, also behind integers, tables and in
  half; `initializing`: drawn anew; `losses`: what it is held to.
- `batches`, `mixing`: samples laid together, and made of others where there are few.
- `problem`: all of that as a loss with its gradients; `checking`: whether these are right.
- `training`, `adam`, `state`: steps, the best state, and where they are gone on from.
- `by_blocks`: a block after the other; `teaching`: within a run that compresses.
- `distilling`: a teacher, a student and samples in, a better student and its judgement out.

What imports the package alone loads none of them: the pass `distill` is looked at by `inspect`,
which needs no judge.
"""
