"""Graphs of models as drawings: boxes in rows, what changed between two, plain data for a page.

- `layout`: rows, order and places of boxes.
- `graphs`: the boxes of a model's graphs, and which tensors join them.
- `pairs`: which boxes of two models stand for each other; `changes`: what differs between them.
- `weights`: constants in a few numbers.
- `viewing`: one or two models as the document that the page of `onnxpress view` is made of.
- `regions`: the places of two models that differ, small enough for a report.
"""
