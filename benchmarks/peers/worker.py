"""Quantize or prune one model with one peer, in the peer's own environment.

    python worker.py CONFIGURATION MODEL FEEDS.npz OUTPUT.onnx

A configuration is a peer's name and what it shall do: `onnxruntime us`, `nncf transformer`,
`onnxsim sparsegpt 0.8`, `onnxsim wanda 2:4`, `onnxsim static`, `neural_compressor smooth`,
`modelopt int8`. Prints the seconds that took alone. Knows nothing
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
    elif peer == "neural_compressor":
        from onnx_neural_compressor import (  # noqa: PLC0415 - only in this peer's environment
            data_reader,
            quantization,
        )
        from onnx_neural_compressor.quantization import config  # noqa: PLC0415

        class Peer(data_reader.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.rewind()

            def get_next(self) -> dict[str, Any] | None:
                return next(self.left, None)

            def rewind(self) -> None:
                self.left = iter(samples)

        options = {"SmoothQuant": True} if layout == "smooth" else {}
        settings = config.StaticQuantConfig(
            Peer(), quant_format=quantization.QuantFormat.QDQ, extra_options=options
        )
        quantization.quantize(model, output, settings)
    elif peer == "modelopt":
        from modelopt.onnx.quantization import quantize  # noqa: PLC0415

        stacked = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
        quantize(model, calibration_data=stacked, output_path=output, calibration_eps=["cpu"])
    elif peer == "onnxsim" and layout in ("static", "recommended"):
        import onnx  # noqa: PLC0415
        import onnxsim  # noqa: PLC0415 - only in this peer's environment

        if layout == "static":
            made = onnxsim.quantize_static(model, samples, num_calibration_samples=len(samples))
        else:
            advice = onnxsim.recommend_quantization(model, calibration_data=samples)
            made = onnxsim.quantize(onnx.load(model), advice.config, calibration_data=samples)
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
        if method == "magnitude":
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
