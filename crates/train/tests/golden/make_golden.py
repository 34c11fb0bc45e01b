"""Numbers of transformers' schedules and of scikit-learn's, scipy's and seqeval's metrics.

    pip install torch transformers scikit-learn scipy seqeval
    python crates/train/tests/golden/make_golden.py

writes golden.json beside this file, the same bytes every time.
"""

import json
import random
from pathlib import Path

import torch
import transformers.optimization as schedules
from scipy import stats
from seqeval import metrics as entity
from seqeval.scheme import IOB2
from sklearn import metrics

PEAK = 2.0
TOTAL = 100


def factors(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = make(optimizer)
    return [schedule.lr_lambdas[0](step) for step in range(TOTAL + 5)]


def schedule_values():
    made = {}
    for warmup in (0, 10):
        made[f"constant {warmup}"] = factors(lambda o: schedules.get_constant_schedule_with_warmup(o, warmup))
        made[f"linear {warmup}"] = factors(lambda o: schedules.get_linear_schedule_with_warmup(o, warmup, TOTAL))
        made[f"cosine {warmup}"] = factors(lambda o: schedules.get_cosine_schedule_with_warmup(o, warmup, TOTAL))
        made[f"cosine floor {warmup}"] = factors(
            lambda o: schedules.get_cosine_with_min_lr_schedule_with_warmup(o, warmup, TOTAL, min_lr_rate=0.1)
        )
        made[f"polynomial {warmup}"] = factors(
            lambda o: schedules.get_polynomial_decay_schedule_with_warmup(o, warmup, TOTAL, lr_end=0.02, power=2.0)
        )
        made[f"inverse sqrt {warmup}"] = factors(lambda o: schedules.get_inverse_sqrt_schedule(o, warmup))
        for tail in ("linear", "1-sqrt", "cosine"):
            made[f"wsd {tail} {warmup}"] = factors(
                lambda o: schedules.get_wsd_schedule(
                    o, warmup, 20, num_training_steps=TOTAL, min_lr_ratio=0.05, decay_type=tail
                )
            )
    return made


def prf(values):
    return [float(value) for value in values[:3]]


def classification(rng):
    gold = [rng.randrange(5) for _ in range(300)]
    # Class 4 is never predicted, class 5 never gold.
    predicted = [g if rng.random() < 0.6 and g != 4 else rng.choice([0, 1, 2, 3, 5]) for g in gold]
    averages = {
        name: prf(metrics.precision_recall_fscore_support(gold, predicted, average=name, zero_division=0))
        for name in ("micro", "macro", "weighted")
    }
    each = metrics.precision_recall_fscore_support(gold, predicted, labels=range(6), zero_division=0)
    binary = [g % 2 for g in gold], [p % 2 for p in predicted]
    return {
        "gold": gold,
        "predicted": predicted,
        "accuracy": metrics.accuracy_score(gold, predicted),
        "averages": averages,
        "each": [[float(each[i][c]) for i in range(3)] for c in range(6)],
        "matthews": metrics.matthews_corrcoef(gold, predicted),
        "matthews_binary": metrics.matthews_corrcoef(*binary),
    }


def multi_label(rng):
    gold = [[rng.random() < 0.3 for _ in range(4)] for _ in range(80)]
    predicted = [[value if rng.random() < 0.8 else not value for value in row] for row in gold]
    averages = {
        name: prf(metrics.precision_recall_fscore_support(gold, predicted, average=name, zero_division=0))
        for name in ("micro", "macro", "weighted")
    }
    return {
        "gold": gold,
        "predicted": predicted,
        "averages": averages,
        "exact": metrics.accuracy_score(gold, predicted),
    }


def numbers(rng):
    x = [rng.choice([0.0, 0.5, 1.0, 2.5]) + rng.randrange(3) for _ in range(120)]
    y = [value + rng.gauss(0, 1.5) for value in x]
    y[3] = y[4] = y[5]
    positive = [value > 1.5 for value in x]
    scores = [round(value, 1) for value in y]
    gold = [rng.randrange(3) for _ in range(90)]
    rows = []
    for g in gold:
        row = [rng.random() + (0.6 if c == g else 0.0) for c in range(3)]
        rows.append([value / sum(row) for value in row])
    return {
        "x": x,
        "y": y,
        "pearson": float(stats.pearsonr(x, y).statistic),
        "spearman": float(stats.spearmanr(x, y).statistic),
        "mse": metrics.mean_squared_error(x, y),
        "mae": metrics.mean_absolute_error(x, y),
        "positive": positive,
        "scores": scores,
        "auc": metrics.roc_auc_score(positive, scores),
        "average_precision": metrics.average_precision_score(positive, scores),
        "gold": gold,
        "rows": rows,
        "auc_macro": metrics.roc_auc_score(gold, rows, multi_class="ovr", average="macro"),
    }


def entities(rng):
    tags = ["O", "O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG"]
    gold = [[rng.choice(tags) for _ in range(rng.randrange(1, 12))] for _ in range(60)]
    predicted = [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in sentence] for sentence in gold]
    made = {"gold": gold, "predicted": predicted, "accuracy": entity.accuracy_score(gold, predicted)}
    for name, options in (("lenient", {}), ("strict", {"mode": "strict", "scheme": IOB2})):
        made[name] = {
            average: [
                float(score(gold, predicted, average=average, zero_division=0, **options))
                for score in (entity.precision_score, entity.recall_score, entity.f1_score)
            ]
            for average in ("micro", "macro", "weighted")
        }
    return made


def main():
    rng = random.Random(20)
    made = {
        "schedules": schedule_values(),
        "classification": classification(rng),
        "multi_label": multi_label(rng),
        "numbers": numbers(rng),
        "entities": entities(rng),
    }
    path = Path(__file__).with_name("golden.json")
    path.write_text(json.dumps(made, separators=(",", ":")) + "\n")


main()
