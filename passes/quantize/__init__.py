"""Store weights as 8-bit integers, and compute in integers where the target has kernels.

Candidates per layer:

- *static*: QuantizeLinear/DequantizeLinear pairs around the layer with fixed ranges from the
  calibration data, int8 weights per channel, int32 bias at scale_x·scale_w (ONNX operators
  QuantizeLinear and DequantizeLinear; arXiv 1712.05877 for the arithmetic);
- *static_16_bit*: the same with activations of 16 bits, where the target has kernels for both;
- *weight_only*: int8 weights that the runtime expands when it loads the model. No data, no
  change of kernels; the file is smaller, memory and speed stay as they were;
- *weight_only_2_bit* to *weight_only_7_bit*: fewer bits in blocks, likewise expanded;
- *static_2_bit* to *dynamic_7_bit*: the same before an integer kernel, expanded to 8 bits.

Where pairs may go: `qdq_rules`. Ranges: `ranges`, and which tensor gets which: `activations`.
Integers: `weights`, `rounding`, and by layer and form: `integers`, `integer_rounding`; below 8
bits: `low_bits`, `low_bit_weights`, `column_codes`, `packing`, `unpacking`, for kernels
`packed_integers`; in how many bits: `forms`, `stored_forms`. Division of inputs before:
`smoothing`, `equalizing`, `folding`, `absorbing`. What is proposed: `proposing`; the rewrite:
`carrying_out`, `writing`, `pairs`.
"""

from onnxpress.passes.quantize.quantize import Quantize

__all__ = ["Quantize"]
