"""Quantize or prune one model with one peer, in the peer's own environment.

    python worker.py CONFIGURATION MODEL FEEDS.npz OUTPUT.onnx

A configuration is a peer's name and what it shall do: `onnxruntime us`, `nncf transformer`,
`onnxsim sparsegpt 0.8`, `onnxsim wanda 2:4`, `onnxsim static`, `neural_compressor smooth`,
`modelopt int8`. Prints the seconds that took alone. Knows nothing
of onnxpress.
"""

import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
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


def nncf(layout: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Post-training quantization by its defaults."""
    import nncf as peer  # noqa: PLC0415 - only in this peer's environment
    import onnx  # noqa: PLC0415

    kind = peer.ModelType.TRANSFORMER if layout == "transformer" else None
    made = peer.quantize(
        onnx.load(model), peer.Dataset(samples), model_type=kind, subset_size=len(samples)
    )
    onnx.save(made, output)


def neural_compressor(layout: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Static QDQ, plain or `smooth`."""
    from onnx_neural_compressor import (  # noqa: PLC0415 - only in this peer's environment
        data_reader,
        quantization,
    )
    from onnx_neural_compressor.quantization import config  # noqa: PLC0415

    class Reader(data_reader.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rewind()

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

        def rewind(self) -> None:
            self.left = iter(samples)

    options = {"SmoothQuant": True} if layout == "smooth" else {}
    settings = config.StaticQuantConfig(
        Reader(), quant_format=quantization.QuantFormat.QDQ, extra_options=options
    )
    quantization.quantize(model, output, settings)


def modelopt(_: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Static int8; what is not quantized stays float32 instead of its default float16."""
    from modelopt.onnx.quantization import (  # noqa: PLC0415 - only in this peer's environment
        quantize,
    )

    stacked = {
        name: np.concatenate([s[name] for s in samples]) if first.ndim else first
        for name, first in samples[0].items()
    }
    quantize(
        model,
        calibration_data=stacked,
        output_path=output,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
    )


def onnxsim(layout: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Quantize (`static`, `recommended`) or prune (a method and how much)."""
    import onnx  # noqa: PLC0415
    import onnxsim as peer  # noqa: PLC0415 - only in this peer's environment

    if layout == "simplify":
        made, agrees = peer.simplify(onnx.load(model))
        if not agrees:
            raise RuntimeError("its own check: the outputs differ")
    elif layout == "static":
        made = peer.quantize_static(model, samples, num_calibration_samples=len(samples))
    elif layout == "recommended":
        advice = peer.recommend_quantization(model, calibration_data=samples)
        made = peer.quantize(onnx.load(model), advice.config, calibration_data=samples)
    else:
        method, amount = layout.split()
        share: dict[str, Any] = {}
        if ":" in amount:
            # Here n counts the weights that stay of every m.
            share["n"], share["m"] = (int(number) for number in amount.split(":"))
        else:
            share["sparsity"] = float(amount)
        if method not in ("magnitude", "structured"):
            share |= {"calibration_data": samples, "num_samples": len(samples)}
        if method.startswith("structured"):
            share["global_sparsity"] = True
        pruning = method.removesuffix("_finetune")
        made = getattr(peer, f"apply_{pruning}_pruning")(onnx.load(model), **share)
        if pruning != method:
            fit = {"calibration_data": samples, "num_samples": len(samples)}
            made = peer.apply_pruning_finetune(model, made, **fit)
    onnx.save(made, output)


def onnxruntime(layout: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Static in a layout as `us`, minimum and maximum; dynamic per channel; or its fusions.

    `prepared` is `us` after its own `quant_pre_process`.
    """
    from onnxruntime import quantization  # noqa: PLC0415 - not in every environment

    if layout == "dynamic":
        quantization.quantize_dynamic(model, output, per_channel=True)
        return
    if layout == "transformers":
        from onnxruntime.transformers import optimizer  # noqa: PLC0415

        optimizer.optimize_model(model).save_model_to_file(output)
        return
    if layout == "prepared":
        quantization.quant_pre_process(model, f"{output}.prepared")
        model, layout = f"{output}.prepared", "us"
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


def onnxslim(_: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """As `onnxslim IN OUT`."""
    import onnxslim as peer  # noqa: PLC0415 - only in this peer's environment

    peer.slim(model, output)


def onnxoptimizer(_: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Its default passes."""
    import onnx  # noqa: PLC0415
    import onnxoptimizer as peer  # noqa: PLC0415 - only in this peer's environment

    onnx.save(peer.optimize(onnx.load(model)), output)


def quark(_: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """u8 activations and s8 weights, the preset for processors."""
    import quark.onnx as peer  # noqa: PLC0415 - only in this peer's environment

    class Reader(peer.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

    config = peer.QConfig.get_default_config("U8S8_AAWS")
    peer.ModelQuantizer(config).quantize_model(model, output, Reader())


def aimet(_: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Simulated int8, written with QuantizeLinear and DequantizeLinear."""
    import aimet_onnx as peer  # noqa: PLC0415 - only in this peer's environment
    import onnx  # noqa: PLC0415

    simulation = peer.QuantizationSimModel(
        onnx.load(model), param_type="int8", activation_type="int8", providers=[PROVIDER]
    )
    simulation.compute_encodings(samples)
    onnx.save(simulation.to_onnx_qdq(), output)


def olive(layout: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """Its pass for onnxruntime's quantizer, `static` or `dynamic`."""
    from olive.data.registry import Registry  # noqa: PLC0415 - only in this peer's environment
    from olive.workflows import run  # noqa: PLC0415

    @Registry.register_dataloader()  # type: ignore[misc]
    def given(*_: object, **__: object) -> list[tuple[dict[str, Any], None]]:
        return [(sample, None) for sample in samples]

    named = {"dynamic": "OnnxDynamicQuantization", "static": "OnnxStaticQuantization"}
    quantizer: dict[str, Any] = {"type": named[layout]}
    data = []
    if layout == "static":
        quantizer["data_config"] = "feeds"
        data = [{"name": "feeds", "dataloader_config": {"type": "given"}}]
    run(
        {
            "input_model": {"type": "OnnxModel", "model_path": model},
            "data_configs": data,
            "passes": {"quantize": quantizer},
            "output_dir": f"{output}.folder",
        }
    )
    made = next(Path(f"{output}.folder").rglob("*.onnx"))
    made.rename(output)


PROVIDER = "CPUExecutionProvider"
PEERS = {
    peer.__name__: peer
    for peer in (
        nncf, neural_compressor, modelopt, onnxsim, onnxruntime, onnxslim, onnxoptimizer, quark,
        aimet, olive,
    )
}  # fmt: skip


def main() -> None:
    """Run the peer that the configuration names."""
    configuration, model, data, output = sys.argv[1:]
    peer, _, layout = configuration.partition(" ")
    samples = list(feeds(data))
    started = time.monotonic()
    PEERS[peer](layout, model, samples, output)
    # Some peers leave a progress bar on the line.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{time.monotonic() - started:.1f} {peak_mb:.0f}")


if __name__ == "__main__":
    main()
