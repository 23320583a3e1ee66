"""Predicted against measured latency: random choices of the passes, five models, one thread.

    python benchmarks/predicted_latency.py [NAME …] > table.md

The table of latencies is filled from few models: each pass with its first candidate at every
site, with its second, and so on, and eight random choices. Fifty other random choices (pruned,
factorized, quantized, or several of these, at a random part of the sites) are predicted from it and
then measured, in processor time, in turn with the original; one in five again with other sessions,
and what the two differ by is the noise. Beside it, what multiply-adds alone would predict.
"""

import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxpress import model_file, registry
from onnxpress.contract import Context, Decision
from onnxpress.costs.keys import NodeKey, node_keys
from onnxpress.costs.measuring import measured_rows
from onnxpress.costs.predicting import model_digest, predict
from onnxpress.costs.sizes import sizes_of
from onnxpress.costs.table import CostTable, this_machine
from onnxpress.data import load_samples
from onnxpress.lossless import simplified
from onnxpress.pool import Pool, PoolOffer, pools_of
from onnxpress.runtime import Feed, Session, compare_latency
from onnxpress.targets import load_target

CACHE = Path("models/.cache")
MODELS = {
    "fashion_cnn": (Path("models/fashion_cnn.onnx"), Path("models/fashion_calibration.npz")),
    "fashion_mobile": (Path("models/fashion_mobile.onnx"), Path("models/fashion_calibration.npz")),
    **{
        name: (CACHE / name / "model.onnx", CACHE / name / "calibration.npz")
        for name in ("minilm", "ocr_cls", "orientation")
    },
}
PASSES = ("prune", "factorize", "quantize")
OBSERVED, LEVELS, MIXES, CHOICES = 4, 6, 8, 50
SEED = 2
"""0 and 1 drew the models by which the predictor was made."""
AGAIN = 5
"""Every so many choices, one is measured twice."""
AT_ONCE = 4
"""Models that are profiled in turn."""
TARGET = load_target("cpu")


@dataclass
class Choices:
    """Random models made of one."""

    model: ir.Model
    samples: object
    rng: np.random.Generator

    def __post_init__(self) -> None:
        """Let the passes propose once on the model itself."""
        self.pools = pools_of([registry.create(name) for name in PASSES])
        self.offers = [self.offer(self.model, pool) for pool in self.pools]

    def offer(self, model: ir.Model, pool: Pool) -> tuple[Context, PoolOffer]:
        """What a pool proposes; rewrites are drafts, whose weights have the right form alone."""
        context = pool.context(model, TARGET, self.samples, threads=1)  # type: ignore[arg-type]
        return replace(context, draft=True), pool.offer(context)

    def levels(self) -> Iterator[ir.Model]:
        """Each pass with the same candidate at every site."""
        for pool, (context, offer) in zip(self.pools, self.offers, strict=True):
            for level in range(LEVELS):
                taken = tuple(
                    Decision(item.site, item.candidates[level])
                    for item in offer.proposals
                    if len(item.candidates) > level
                )
                if taken:
                    yield pool.rewrite(context, taken)

    def mixed(self) -> ir.Model:
        """One to three passes in turn, any candidate at some of the sites."""
        acting = self.rng.random(len(self.pools)) < 0.6
        acting[self.rng.integers(len(self.pools))] = True
        model = self.model
        for number in np.flatnonzero(acting):
            pool = self.pools[number]
            known = model is self.model
            context, offer = self.offers[number] if known else self.offer(model, pool)
            share = self.rng.uniform(0.2, 1.0)
            taken = tuple(
                Decision(item.site, item.candidates[self.rng.integers(len(item.candidates))])
                for item in offer.proposals
                if self.rng.random() < share
            )
            if taken:
                model = pool.rewrite(context, taken)
        return model


def keys_of(model: ir.Model, feed: Feed) -> list[NodeKey]:
    """Of its nodes, as the feed sizes them."""
    return node_keys(model, sizes_of(model, {name: array.shape for name, array in feed.items()}))


def filled(original: ir.Model, models: Sequence[ir.Model], feed: Feed) -> CostTable:
    """A table of models, some in turn at a time, each time with the original."""
    table = CostTable(this_machine(1))
    reference = None
    rows = []
    for start in range(0, len(models), AT_ONCE):
        batch = [original, *models[start : start + AT_ONCE]]
        found = measured_rows(
            batch, [feed] * len(batch), threads=1, budget_s=4.0, reference=reference
        )
        reference = found[0].microseconds
        for one in found:
            rows += one.rows
            table.models[model_digest(one.keys)] = one.time
    table.add(rows)
    return table


def faster(original: ir.Model, model: ir.Model, feed: Feed) -> float:
    """The original's processor time over the model's, with sessions of their own."""
    pair = [Session(one, threads=1) for one in (original, model)]
    return compare_latency(*pair, feed, rounds=21, clock=time.thread_time).speedup


def row(name: str) -> str:
    """Errors of one model."""
    path, data = MODELS[name]
    passes, _ = registry.default_passes()
    original = simplified(model_file.load(path), passes, TARGET)
    samples = load_samples(str(data), Session(original, threads=1).inputs)
    feed = samples.feeds[0]
    few = replace(samples, feeds=samples.feeds[:OBSERVED], labels=None)
    choices = Choices(original, few, np.random.default_rng(SEED))
    started = time.monotonic()
    models = [*choices.levels(), *(choices.mixed() for _ in range(MIXES))]
    made = time.monotonic()
    table = filled(original, models, feed)
    took = time.monotonic() - made
    del models
    print(f"{name}: {made - started:.0f} s to make, {took:.0f} s to measure", file=sys.stderr)
    keys = keys_of(original, feed)
    like = model_digest(keys)
    reference = table.models[like].microseconds / 1e3
    work = sum(key.multiply_adds for key in keys)
    errors, by_work, noise, speedups = [], [], [], []
    shares = dict.fromkeys(("measured", "scaled", "estimate"), 0.0)
    looking = 0.0
    for number in range(CHOICES):
        model = choices.mixed()
        begun = time.process_time()
        own = keys_of(model, feed)
        found = predict(own, table, like=like)
        looking += time.process_time() - begun
        speedup = faster(original, model, feed)
        if number % AGAIN == 0:
            again = faster(original, model, feed)
            noise.append(max(speedup, again) / min(speedup, again) - 1)
        errors.append(found.ms * speedup / reference - 1)
        by_work.append(sum(key.multiply_adds for key in own) / work * speedup - 1)
        speedups.append(speedup)
        for basis, share in found.shares.items():
            shares[basis] += share / CHOICES
        print(
            f"{name} {number}: {errors[-1]:+.1%} ({speedup:.2f}×)",
            file=sys.stderr,
        )
    told = [float(np.quantile(np.abs(errors), q)) for q in (0.5, 0.9)]
    plain = float(np.median(np.abs(by_work)))
    return (
        f"| {name} | {reference:.2f} | {min(speedups):.2f} to {max(speedups):.2f} "
        f"| {told[0]:.1%} | {told[1]:.1%} | {statistics.median(errors):+.1%} "
        f"| {statistics.median(noise):.1%} | {plain:.0%} "
        f"| {shares['measured']:.0%}, {shares['scaled']:.0%}, {shares['estimate']:.0%} "
        f"| {len(table.rows)} | {1e3 * looking / CHOICES:.0f} |"
    )


def main() -> None:
    """Print a table in Markdown."""
    print(
        "| model | original, ms | speedups | median error | nine in ten below | bias | noise "
        "| by multiply-adds | measured, scaled, estimated | rows | to predict, ms |"
    )
    print("|" + " --- |" * 11)
    for name in sys.argv[1:] or MODELS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
