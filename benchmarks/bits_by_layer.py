"""Bits of each layer by the noise that they take away for their bytes, for a file of some size.

    python benchmarks/bits_by_layer.py NAME --mb MB [--words BITS] [--words-block SIZE] [--refined]

The noise of a layer is what the worst output shows with this layer alone in 4 bits, rounded by
columns, on 24 calibration samples; a bit more is a quarter of it. Codebooks in blocks of 32, 2 to 7
bits; embeddings have bits and blocks of their own, since the samples do not say what the rows lose
that they do not look up. Decibels as in `low_bits.py`, of 64 evaluation samples.
"""

import argparse
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from low_bits import CALIBRATION, SAMPLES, THREADS, pooled_db, same_choice
from press import paths

from onnxpress import model_file
from onnxpress.contract import Candidate, Context, Decision, Layer, StoredWeight
from onnxpress.data import Samples, load_samples
from onnxpress.lossless import lossless
from onnxpress.passes.quantize import Quantize
from onnxpress.passes.quantize.forms import parameters_of, stored_family
from onnxpress.passes.quantize.low_bit_weights import blocks_of, often_rows
from onnxpress.passes.quantize.low_bits import LowBitForm
from onnxpress.passes.quantize.unpacking import nodes_bytes
from onnxpress.passes.simplify import Simplify
from onnxpress.pool import Pool
from onnxpress.runtime import Session
from onnxpress.targets import load_target

MEASURED = 24
"""Samples that say what a layer loses."""
MOST_BITS = 7
ALONE = LowBitForm(4, 32)


def form_of_layer(bits: int) -> LowBitForm:
    """Of a layer that is no embedding."""
    return LowBitForm(bits, 32, kind="codebook")


def bytes_in(context: Context, weight: Layer | StoredWeight, form: LowBitForm) -> int:
    """What the weight takes in the file."""
    often = len(often_rows(context, weight)) * (weight.shape[-1] + 12)
    return blocks_of(weight, form).nbytes(form) + nodes_bytes(form) + often


def candidate(form: LowBitForm, *, refined: bool = False) -> Candidate:
    """Stored in a form."""
    return Candidate(
        parameters_of(form), family=stored_family(form), keeps_kernels=True, refined=refined
    )


def noise_of_layers(
    pool: Pool, context: Context, layers: list[Layer], samples: Samples
) -> dict[str, float]:
    """Over the output's power, of the worst output, with one layer alone in 4 bits."""
    feeds = samples.feeds[:MEASURED]
    plain = Session(context.model, threads=THREADS)
    wanted = [dict(plain.run(feed)) for feed in feeds]
    found = {}
    for layer in layers:
        made = pool.rewrite(context, [Decision(layer.name, candidate(ALONE))])
        session = Session(made, threads=THREADS)
        answers = [dict(session.run(feed)) for feed in feeds]
        found[layer.name] = 10 ** (-pooled_db(wanted, answers) / 10)
    return found


def shared_out(
    context: Context, layers: list[Layer], noise: dict[str, float], budget: float
) -> dict[str, int]:
    """Bits by layer: always one more where that takes most noise away for its bytes."""
    sizes = {
        layer.name: [bytes_in(context, layer, form_of_layer(b)) for b in range(2, MOST_BITS + 1)]
        for layer in layers
    }
    bits = dict.fromkeys(sizes, 2)
    while True:
        total = sum(sizes[name][own - 2] for name, own in bits.items())
        best = max(
            (
                (noise[name] * 4.0**-own / more, name)
                for name, own in bits.items()
                if own < MOST_BITS
                and total + (more := sizes[name][own - 1] - sizes[name][own - 2]) <= budget
            ),
            default=None,
        )
        if best is None:
            return bits
        bits[best[1]] += 1


def main() -> None:
    """Print bits, bytes and decibels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--mb", type=float, required=True, help="of the file, 10⁶ bytes")
    parser.add_argument("--words", type=int, default=4, help="bits of embeddings")
    parser.add_argument("--words-block", type=int, default=128, help="blocks of embeddings")
    parser.add_argument("--refined", action="store_true")
    given = parser.parse_args()
    logging.disable(logging.INFO)
    path, calibration, evaluation = paths(given.name)
    pool = Pool((Quantize(form="weight_only", weight_bits=(4, 8)),))
    target = load_target("cpu")
    model = lossless(Simplify(), model_file.load(path), target, 0).model
    samples = load_samples(calibration, Session(model).inputs)
    samples = samples.take(range(min(CALIBRATION, len(samples))))
    context = pool.context(model, target, samples, threads=THREADS)
    offers = {p.site: p for p in pool.offer(replace(context, survey=True)).proposals}
    weights = {weight.name: weight for weight in (*context.stored, *context.layers)}
    layers = [x for x in context.layers if x.name in offers and x.op_type != "Gather"]
    layers = [x for x in layers if len(offers[x.name].candidates) > 1]
    words = LowBitForm(given.words, given.words_block, kind="codebook")
    chosen = dict.fromkeys((layer.name for layer in layers), ALONE)
    others = {}
    left = given.mb * 1e6 - len(model_file.to_bytes(model))
    left += sum(weights[site].nbytes for site in offers)
    for site, proposal in offers.items():
        if site in chosen:
            continue
        if len(proposal.candidates) > 1 and weights[site].nbytes > weights[layers[0].name].nbytes:
            others[site] = candidate(words, refined=given.refined)
            left -= bytes_in(context, weights[site], words)
        else:
            others[site] = proposal.candidates[-1]
            left -= weights[site].nbytes - proposal.candidates[-1].saved_bytes
    bits = shared_out(context, layers, noise_of_layers(pool, context, layers, samples), left)
    print(", ".join(f"{name} {own}" for name, own in bits.items()), flush=True)
    for name, own in bits.items():
        others[name] = candidate(form_of_layer(own), refined=given.refined)
    decisions = [Decision(site, found) for site, found in others.items()]
    made = pool.rewrite_refined(context, decisions, samples, threads=THREADS)
    original = Session(path, threads=THREADS)
    feeds = load_samples(evaluation, original.inputs).feeds[:SAMPLES]
    wanted = [dict(original.run(feed)) for feed in feeds]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "model.onnx")
        model_file.save(made, output)
        session = Session(output, threads=THREADS)
        found = [dict(session.run(feed)) for feed in feeds]
        size = output.stat().st_size / 1e6
    db, same = pooled_db(wanted, found), 100 * same_choice(wanted, found)
    print(f"{given.name}: {size:.2f} MB, {db:.1f} dB, same {same:.1f}%")


if __name__ == "__main__":
    main()
