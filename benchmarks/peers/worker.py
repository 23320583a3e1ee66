"""Quantize or prune one model with one peer, in the peer's own environment.

    python worker.py CONFIGURATION MODEL FEEDS.npz OUTPUT.onnx

A configuration is a peer's name and what it shall do: `onnxruntime us`, `nncf transformer`,
`onnxsim sparsegpt 0.8`, `onnxsim wanda 2:4`. Prints the seconds that took alone. Knows nothing
of onnxpress.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np


def feeds(path: str) -> Iterator[dict[str, Any]]:
    """One dictionary of input name to array per sample; keys are `number/name`."""
    with np.load(path) as archive:
        samples: dict[int, dict[str, Any]] = {}
        for key in archive.files:
            number, _, name = key.partition("/")
            samples.setdefault(int(number), {})[name] = archive[key]
    for number in sorted(samples):
        yield samples[number]


def main() -> None:
    """Run the peer that the configuration names."""
    configuration, model, data, output = sys.argv[1:]
    peer, _, layout = configuration.partition(" ")
    samples = list(feeds(data))
    started = time.monotonic()
    if peer == "nncf":
        import nncf  # noqa: PLC0415 - only in this peer's environment
        import onnx  # noqa: PLC0415

        kind = nncf.ModelType.TRANSFORMER if layout == "transformer" else None
        made = nncf.quantize(
            onnx.load(model), nncf.Dataset(samples), model_type=kind, subset_size=len(samples)
        )
        onnx.save(made, output)
    elif peer == "onnxsim":
        import onnx  # noqa: PLC0415
        import onnxsim  # noqa: PLC0415 - only in this peer's environment

        method, amount = layout.split()
        share: dict[str, Any] = {}
        if ":" in amount:
            # Here n counts the weights that stay of every m.
            share["n"], share["m"] = (int(number) for number in amount.split(":"))
        else:
            share["sparsity"] = float(amount)
        if method == "structured":
            made = onnxsim.apply_structured_pruning(onnx.load(model), global_sparsity=True, **share)
        elif method == "structured_wanda_finetune":
            pruned = onnxsim.apply_structured_wanda_pruning(
                onnx.load(model),
                calibration_data=samples,
                num_samples=len(samples),
                global_sparsity=True,
                **share,
            )
            made = onnxsim.apply_pruning_finetune(
                model, pruned, calibration_data=samples, num_samples=len(samples)
            )
        elif method == "magnitude":
            made = onnxsim.apply_magnitude_pruning(onnx.load(model), **share)
        else:
            function = getattr(onnxsim, f"apply_{method}_pruning")
            made = function(
                onnx.load(model), calibration_data=samples, num_samples=len(samples), **share
            )
        onnx.save(made, output)
    else:
        from onnxruntime import quantization  # noqa: PLC0415 - not in every environment

        if layout == "dynamic":
            quantization.quantize_dynamic(model, output, per_channel=True)
        else:
            types = {"u": quantization.QuantType.QUInt8, "s": quantization.QuantType.QInt8}

            class Reader(quantization.CalibrationDataReader):
                def __init__(self) -> None:
                    self.samples = iter(samples)

                def get_next(self) -> dict[str, Any] | None:
                    return next(self.samples, None)

            quantization.quantize_static(
                model,
                output,
                Reader(),
                activation_type=types[layout[0]],
                weight_type=types[layout[1]],
                per_channel=layout[1] == "s",
            )
    print(f"{time.monotonic() - started:.1f}")


if __name__ == "__main__":
    main()
