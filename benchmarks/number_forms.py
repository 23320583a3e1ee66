"""Codes of few bits by kinds of levels and by what reads them, beside what others write.

    python benchmarks/number_forms.py NAME [NAME ...] [--rows PATTERN]
    python benchmarks/number_forms.py --layers NAME [NAME ...]

The columns are those of `low_bits.py`. onnxruntime's quantizers (round to nearest, k-quant, GPTQ;
HQQ needs torch) and NNCF's weight compression, the latter in its own environment
(`peer_environments.py`), have blocks of 32 and take MatMul and Gather. `--layers` prints how near
each kind comes to the layer's output at 4 bits, one scale an output, and to the weight's numbers.
"""

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from low_bits import CALIBRATION, Maker, main, ours, theirs
from onnxruntime.quantization import CalibrationDataReader
from onnxruntime.quantization.matmul_nbits_quantizer import (
    GPTQWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from press import paths

from onnxpress import model_file
from onnxpress.data import load_samples
from onnxpress.errors import OnnxpressError
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.low_bit_weights import low_bit_weight
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target

NNCF = Path(__file__).parent / ".peers" / "nncf" / "bin" / "python"
COMPRESS = """
import sys, nncf, onnx
model = onnx.load(sys.argv[1])
made = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, group_size=32,
                             ratio=1.0, all_layers=True)
onnx.save(made, sys.argv[2])
"""
LEAST = 4096
"""Elements of a layer that is listed."""


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples as onnxruntime reads them."""

    def __init__(self, feeds: Any) -> None:  # noqa: ANN401
        self.feeds = iter(feeds)

    def get_next(self) -> Any:  # noqa: ANN401, D102
        return next(self.feeds, None)

    def __deepcopy__(self, memo: Any) -> "Reader":  # noqa: ANN401
        kept = list(self.feeds)
        self.feeds = iter(kept)
        return Reader(kept)

    def __iter__(self) -> Any:  # noqa: ANN401
        return self.feeds


def by(algorithm: str) -> Maker:
    """Another of onnxruntime's quantizers, 4 bits."""

    def make(name: str, output: Path) -> None:
        path, calibration, _ = paths(name)
        inputs = Session(path).inputs
        feeds = load_samples(calibration, inputs).feeds[:CALIBRATION]
        configs = {
            "k_quant": KQuantWeightOnlyQuantConfig,
            "GPTQ": lambda: GPTQWeightOnlyQuantConfig(Reader([dict(feed) for feed in feeds])),
            "HQQ": lambda: HQQWeightOnlyQuantConfig(block_size=32, bits=4),
        }
        quantizer = MatMulNBitsQuantizer(
            onnx.load(path), block_size=32, algo_config=configs[algorithm]()
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(output))

    return make


def by_nncf(name: str, output: Path) -> None:
    """NNCF's weight compression, int4 in groups of 32."""
    command = [NNCF, "-c", COMPRESS, paths(name)[0], output]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        raise OnnxpressError(f"NNCF: {(done.stderr.splitlines() or ['no words'])[-1]}")


def of_data(bits: int, **settings: Any) -> Maker:  # noqa: ANN401 - of the pass
    """Rounded by columns, not again for what the quantized network gives each layer."""
    return ours(bits, refined=False, **settings)


LOG, SUMS = {"levels": ("log",)}, {"levels": ("power_sums",)}
BOOK, ROW_BOOK = {"levels": ("codebook",)}, {"levels": ("row_codebook",)}
SHIFTS = {"block": 0, "power_of_two_scales": True}
ROWS: dict[str, Maker] = {
    "8 bit": of_data(8),
    "4 bit uniform": of_data(4),
    "4 bit codebook": of_data(4, **BOOK),
    "4 bit log": of_data(4, **LOG),
    "4 bit power sums": of_data(4, **SUMS),
    "4 bit uniform, per channel": of_data(4, block=0),
    "4 bit codebook, per channel": of_data(4, block=0, **BOOK),
    "4 bit row codebook": of_data(4, **ROW_BOOK),
    "4 bit log, per channel": of_data(4, block=0, **LOG),
    "4 bit power sums, per channel": of_data(4, block=0, **SUMS),
    "4 bit log, shifts": of_data(4, **LOG, **SHIFTS),
    "4 bit power sums, shifts": of_data(4, **SUMS, **SHIFTS),
    "3 bit uniform": of_data(3),
    "3 bit codebook": of_data(3, **BOOK),
    "3 bit row codebook": of_data(3, **ROW_BOOK),
    "3 bit log": of_data(3, **LOG),
    "2 bit uniform": of_data(2),
    "2 bit codebook": of_data(2, **BOOK),
    "2 bit row codebook": of_data(2, **ROW_BOOK),
    "4 bit nbits": of_data(4, stored_as="nbits"),
    "4 bit nbits, zero points": of_data(4, symmetric=False, stored_as="nbits"),
    "8 bit nbits": of_data(8, stored_as="nbits"),
    "4 bit blocked": of_data(4, stored_as="blocked"),
    "4 bit uniform, refined": ours(4),
    "4 bit codebook, refined": ours(4, **BOOK),
    "3 bit uniform, refined": ours(3),
    "3 bit codebook, refined": ours(3, **BOOK),
    "2 bit uniform, refined": ours(2),
    "2 bit row codebook, refined": ours(2, **ROW_BOOK),
    "5 bit, words 3 bit": of_data(5, words=3, **BOOK),
    "6 bit, words 3 bit": of_data(6, words=3, **BOOK),
    "5 bit, words 3 bit, refined": ours(5, words=3, **BOOK),
    "5 bit, words 4 bit": of_data(5, words=4, **BOOK),
    "onnxruntime 4 bit": theirs(symmetric=False, accuracy_level=None),
    "onnxruntime 4 bit, level 4": theirs(symmetric=False, accuracy_level=4),
    "onnxruntime k_quant": by("k_quant"),
    "onnxruntime HQQ": by("HQQ"),
    "onnxruntime GPTQ": by("GPTQ"),
    "NNCF int4": by_nncf,
}


def list_layers(name: str) -> None:
    """Print decibels of 4 bits per channel by kind, without and with errors fed on."""
    path, calibration, _ = paths(name)
    target, pool = load_target("cpu"), Pool((Quantize(form="weight_only", weight_bits=(4,)),))
    model = lossless(Simplify(), model_file.load(path), target, 0).model
    samples = load_samples(calibration, Session(model).inputs)
    samples = samples.take(range(min(CALIBRATION, len(samples))))
    context = pool.context(model, target, samples, threads=2)
    kinds = ("uniform", "log", "power_sums", "codebook")
    for layer in context.layers:
        weight = layer.read()
        if layer.unsafe is not None or weight.size < LEAST:
            continue
        spread = weight - weight.mean()
        tails = float((spread**4).mean() / np.square(np.square(spread).mean()))
        cells = []
        for kind in kinds:
            form = LowBitForm(4, 0, kind=kind)  # type: ignore[arg-type]
            found = [
                low_bit_weight(replace(context, draft=draft), layer, form).error
                for draft in (True, False)
            ]
            cells.append(" to ".join(f"{-10 * np.log10(max(e, 1e-30)):.1f}" for e in found))
        cells = [name, layer.name, layer.op_type, f"{tails:.1f}", *cells]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    if "--layers" in sys.argv:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("--layers", nargs="+", metavar="NAME")
        heads = "model", "layer", "operator", "kurtosis", "uniform", "log", "power sums", "codebook"
        print("| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
        for given in parser.parse_args().layers:
            list_layers(given)
    else:
        main(MappingProxyType(ROWS))
