"""Store one model's weights in few bits with one peer, in the peer's own environment.

    python low_bits.py CONFIGURATION MODEL FEEDS.npz OUTPUT.onnx

Configurations: `onnxruntime plain`, `onnxruntime k_quant`, `onnxruntime HQQ`, `onnxruntime GPTQ`
(MatMulNBits, 4 bits in blocks of 32), `nncf int4` (groups of 32), `nncf int4 data` (with its AWQ
and scale estimation), `nncf int8`, each by its defaults otherwise. Knows nothing of onnxpress.
"""

import sys
from typing import Any

import onnx
from worker import feeds

BLOCK = 32


def onnxruntime(algorithm: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """`MatMulNBitsQuantizer`, of MatMul, and of Gather where the algorithm has it."""
    from onnxruntime.quantization import CalibrationDataReader  # noqa: PLC0415
    from onnxruntime.quantization import matmul_nbits_quantizer as peer  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.left, None)

        def __iter__(self) -> Any:  # noqa: ANN401 - as it takes them
            return iter(samples)

        def __deepcopy__(self, memo: Any) -> "Reader":  # noqa: ANN401 - as copy has it
            return Reader()

    options: dict[str, Any] = {"block_size": BLOCK}
    if algorithm == "plain":
        options["op_types_to_quantize"] = ("MatMul", "Gather")
    else:
        made = {
            "k_quant": peer.KQuantWeightOnlyQuantConfig,
            "HQQ": lambda: peer.HQQWeightOnlyQuantConfig(block_size=BLOCK, bits=4),
            "GPTQ": lambda: peer.GPTQWeightOnlyQuantConfig(Reader(), block_size=BLOCK),
        }
        options["algo_config"] = made[algorithm]()
    quantizer = peer.MatMulNBitsQuantizer(onnx.load(model), **options)
    quantizer.process()
    quantizer.model.save_model_to_file(output)


def nncf(form: str, model: str, samples: list[dict[str, Any]], output: str) -> None:
    """`compress_weights`."""
    import nncf as peer  # noqa: PLC0415 - only in this peer's environment

    options: dict[str, Any] = {"mode": peer.CompressWeightsMode.INT8_ASYM}
    if form.startswith("int4"):
        options = {
            "mode": peer.CompressWeightsMode.INT4_SYM,
            "group_size": BLOCK,
            "ratio": 1.0,
            "all_layers": True,
        }
    if form.endswith("data"):
        options |= {"dataset": peer.Dataset(samples), "awq": True, "scale_estimation": True}
    onnx.save(peer.compress_weights(onnx.load(model), **options), output)


def main() -> None:
    """Run one configuration."""
    configuration, model, given, output = sys.argv[1:]
    tool, _, form = configuration.partition(" ")
    {"onnxruntime": onnxruntime, "nncf": nncf}[tool](form, model, list(feeds(given)), output)


if __name__ == "__main__":
    main()
