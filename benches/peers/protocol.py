"""The workers' protocol, as examples/bench_encoder/protocol.rs describes it, for those in Python."""

import argparse
import json
import sys
import time

import numpy


def parse_arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True)
    parser.add_argument("--cases", required=True)
    parser.add_argument("--threads", required=True, type=int)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16", "int8"))
    return parser.parse_args()


def pad(sequences):
    """Ids and mask `[B, S]`, i64, zero on padding."""
    longest = max(map(len, sequences))
    ids = numpy.zeros((len(sequences), longest), dtype=numpy.int64)
    mask = numpy.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def serve(engine, cases):
    """Says what the engine is, then answers requests until standard input ends.

    An engine has `about()`, `vocabulary()`, `prepare(sequences)`, which is not timed, `forward(batch)`,
    which is, and `vectors(output)`, the last hidden states as an array `[B, S, N]`.
    """
    with open(cases) as file:
        lengths = {case["name"]: case["lengths"] for case in json.load(file)}
    answer(engine.about())
    for line in sys.stdin:
        case, iterations = line.split()
        name, _, chunk = case.partition(":")
        sequences = make_sequences(lengths[name], engine.vocabulary())
        answer({"case": case, **run(engine, sequences, int(chunk or 0), int(iterations))})


def answer(value):
    print(json.dumps(value), flush=True)


def make_sequences(lengths, vocabulary):
    state = 1

    def following():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % vocabulary

    return [[following() for _ in range(length)] for length in lengths]


def run(engine, sequences, chunk, iterations):
    """Seconds of each pass over the sequences, and their checksums."""
    order = list(range(len(sequences)))
    if chunk:
        order.sort(key=lambda i: len(sequences[i]))
    step = chunk or len(order)
    batches = [order[at : at + step] for at in range(0, len(order), step)]
    inputs = [engine.prepare([sequences[i] for i in batch]) for batch in batches]

    seconds = []
    for _ in range(iterations):
        outputs = []
        start = time.perf_counter()
        for batch in inputs:
            outputs.append(engine.forward(batch))
        seconds.append(time.perf_counter() - start)

    checksum = [0.0] * len(sequences)
    for batch, output in zip(batches, outputs):
        for i, vectors in zip(batch, engine.vectors(output)):
            checksum[i] = weigh(vectors[: len(sequences[i])])
    return {"seconds": seconds, "checksum": checksum}


def weigh(vectors):
    """The sum of `[length, N]` values under weights that follow from the place."""
    length, width = vectors.shape
    place = numpy.arange(length)[:, None] * 31 + numpy.arange(width)[None, :] * 17
    weights = (place % 13 - 6) / 6
    return float((vectors.astype(numpy.float64) * weights).sum() / (length * width) ** 0.5)
