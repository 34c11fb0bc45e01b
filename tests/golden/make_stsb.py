"""Writes tests/golden/stsb/expected.json: how well the cosines of all-MiniLM-L6-v2 embeddings rank the sentence pairs
of tests/golden/stsb/test.tsv, by sentence-transformers' own evaluator.

    scripts/fetch-model.sh
    python tests/golden/make_stsb.py [MODEL_DIR]

See README.md.
"""

import csv
import sys
from pathlib import Path

import make_minilm
import tiny
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

OUT = Path(__file__).resolve().parent / "stsb"


def main():
    with open(OUT / "test.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    model = make_minilm.load(sys.argv[1] if len(sys.argv) > 1 else make_minilm.MODEL)
    evaluate = EmbeddingSimilarityEvaluator(
        [row["sentence1"] for row in rows],
        [row["sentence2"] for row in rows],
        [float(row["score"]) / 5 for row in rows],
        batch_size=32,
        main_similarity="cosine",
        write_csv=False,
    )
    result = evaluate(model)
    expected = {"pairs": len(rows), "spearman_cosine": float(result["spearman_cosine"])}
    tiny.write_json(OUT / "expected.json", expected)
    (OUT / "expected.json").chmod(0o644)
    print(expected, result)


if __name__ == "__main__":
    main()
