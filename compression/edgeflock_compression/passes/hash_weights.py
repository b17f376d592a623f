"""HashedNets: elements share values by a hash of their place. Helps the bytes on the wire, nothing else.

Chen et al. 2015 (arXiv:1504.04788): element i of a weight is sign(i) * v[bucket(i)], where v is all that is stored and
trained. The hash is `edgeflock_deploy.codec.weight_hash`, so that a seed gives the codes again. Biases stay free.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.training.fine_tuning import fine_tune
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.weights.targets import Target, WeightPass, setting_of, targets
from edgeflock_compression.work import Codebook, Skipped, Work
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.errors import BadInput

_AS_IS = {"Embedding", "DepthwiseConv1D", "DepthwiseConv2D"}  # the converter keeps the order of their elements


class Settings(WeightPass):
    """Settings of the pass."""

    epochs: float = Field(10.0, ge=0)
    learning_rate: float = Field(3e-3, gt=0)
    ratio: float | dict[str, float] = 0.125  # values stored per element, or by pattern of weight paths
    start: Literal["given", "random"] = "given"  # values that stand for the given weight, or drawn; equal below a tenth


def hash_weights(work: Work, settings: Settings) -> Work:
    """Share by hash and fine-tune; `work.codebooks` holds the values v and -v, and the seed.

    Raises:
        BadInput: a pattern matches no weight, or a ratio is not in 0..1.
    """
    chosen, skipped = targets(work, settings)
    books: dict[str, Codebook] = {}
    for one in chosen:
        ratio = setting_of(one.path, settings.ratio, [other.path for other in chosen])
        if ratio is None:
            continue
        if not 0 < ratio <= 1:
            raise BadInput("pass 'hash'", f"ratio {ratio:g} is not in 0..1", "give values stored per element")
        if one.path in work.masks:
            skipped.append(Skipped(layer=one.path, reason="is pruned, and a hash cannot keep its zeros"))
        else:
            books[one.path] = hashed(one, max(1, round(one.weight.size * ratio)), work.bench.seed, settings.start)
    work = work.skipping(*skipped)
    if not books:
        return work
    work = replace(work, codebooks={**work.codebooks, **books})
    trained = fine_tune(work.model, work.bench, settings, held(work), "training hashed values")
    kept_books = kept(work, {path: trained.parameters[path][0] for path in work.codebooks})
    done = replace(work, model=trained.model, codebooks=kept_books)
    return done.noting("hash", values={path: len(book.values) // 2 for path, book in books.items()})


def hashed(one: Target, buckets: int, seed: int, start: Literal["given", "random"]) -> Codebook:
    """The start of a weight: which element takes which of the 2 * `buckets` values v and -v.

    Elements are counted in the order of the `.tflite`: outputs first where the kernel has its outputs last.
    """
    own_seed = int.from_bytes(hashlib.sha256(f"{seed} {one.path}".encode()).digest()[:4], "big")
    weight = one.weight if one.layer in _AS_IS else np.moveaxis(one.weight, -1, 0)
    bucket, sign = bucket_and_sign(own_seed, weight.size, buckets)
    if start == "random":
        values = np.random.default_rng(own_seed).normal(0.0, one.weight.std(), buckets)
    else:  # the mean of what shares a value has less spread than the weight: given back, else signals fade
        sums = np.bincount(bucket, sign * weight.ravel().astype(np.float64), buckets).astype(np.float64)
        values = sums / np.maximum(np.bincount(bucket, minlength=buckets), 1)
        values *= one.weight.std() / max(float(values.std()), 1e-12) if buckets > 1 else 1.0
    codes: NDArray[Any] = (bucket + buckets * (sign < 0)).astype(np.int32).reshape(weight.shape)
    codes = codes if one.layer in _AS_IS else np.moveaxis(codes, 0, -1)
    both = np.concatenate([values, -values]).astype(np.float32)
    return Codebook(both, np.ascontiguousarray(codes), np.zeros(2 * buckets, bool), own_seed, mirrored=True)
