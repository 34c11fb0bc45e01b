"""Writes tests/golden/pipelines/: tiny task models and what `transformers` pipelines answer with them.

    python tests/golden/make_pipelines.py           # transformers 4.57: the last with question-answering
    python tests/golden/make_pipelines.py --check   # any version: compares its answers with the files

Each folder is a model with its tokenizer and `expected.json`, a list of {input, options, output}.
A fixture must not hang on a coin toss: the script fails if two neighbouring scores are closer
than a float32 engine can tell apart. See README.md.
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
import transformers
from transformers import (
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    pipeline,
)

import tiny

OUT = Path(__file__).resolve().parent / "pipelines"
TOLERANCE = 1e-5
MAX_LENGTH = 48

SENTENCES = [
    "John Smith lives in London, but he works in Paris!",
    "The old river went to a new city.",
    'Café in Córdoba: Zoë said "naïve" to 世界 and cafe\u0301s.',
    "Unbelievableness",
    "What is a good question? Write an answer (not too long) & read it.",
]
CONTEXT = (
    "John Smith lives in a good old house in London, but he works in Paris. Mary said that the river in Berlin "
    "was not as great as the one in London, and that all of the cities of the world have more than one river."
)
LONG_CONTEXT = (
    CONTEXT
    + " The question was which one they saw when they came to the city: Zoë went to Córdoba, so she had no time. "
    "When the day was out, John read a book about it, and Mary read the answer that he would write about the model. "
    "It was a long answer, with many words and little to say; what they said about it was not good."
)
QUESTIONS = ["Where does John work?", "What is the river?", "Who said that they have no time?", "Which model is it?"]


def labels(*names):
    return dict(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})


def sharpen(layer, factor):
    """Scales a head so that probabilities spread over 0..1 instead of hugging the mean."""
    with torch.no_grad():
        layer.weight.mul_(factor)
        layer.bias.mul_(factor)


def models():
    """name -> (task, model)"""
    wide = dict(hidden_size=24, num_attention_heads=2, intermediate_size=37)
    ner = tiny.randomise(
        BertForTokenClassification(tiny.config(**wide, **labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))), 12
    )
    sharpen(ner.classifier, 2.0)
    qa = tiny.randomise(BertForQuestionAnswering(tiny.config(**wide)), 104)
    sharpen(qa.qa_outputs, 3.0)
    sentiment = labels("negative", "neutral", "positive")
    return {
        "fill_mask": ("fill-mask", tiny.randomise(BertForMaskedLM(tiny.config(**wide)), 11)),
        "classify_single": (
            "text-classification",
            tiny.randomise(BertForSequenceClassification(tiny.config(**sentiment)), 14),
        ),
        "classify_multi": (
            "text-classification",
            tiny.randomise(
                BertForSequenceClassification(
                    tiny.config(problem_type="multi_label_classification", **labels("sport", "science", "art", "law"))
                ),
                15,
            ),
        ),
        "classify_one_label": (
            "text-classification",
            tiny.randomise(BertForSequenceClassification(tiny.config(num_labels=1)), 16),
        ),
        "regression": (
            "text-classification",
            tiny.randomise(BertForSequenceClassification(tiny.config(num_labels=1, problem_type="regression")), 17),
        ),
        "tag": ("token-classification", ner),
        "answer": ("question-answering", qa),
    }


def questions(task):
    """(input, options) of every task."""
    if task == "fill-mask":
        yield "The old [MASK] went to the river.", {}
        yield "John [MASK] lives in London.", {"top_k": 3}
        yield "She [MASK] in the [MASK] and he works in [MASK]!", {"top_k": 2}
        # `unbelievable` is no word of the vocabulary: its first piece stands for it.
        yield "They [MASK] a long answer.", {"targets": ["write", "read", "see", "unbelievable"]}
        yield "The [MASK] of the [MASK].", {"targets": ["house", "river", "city"], "top_k": 2}
    elif task == "text-classification":
        for text in SENTENCES:
            yield text, {"top_k": 1}
            yield text, {"top_k": None}
        yield SENTENCES[0], {"top_k": 2}
        yield {"text": SENTENCES[1], "text_pair": SENTENCES[3]}, {"top_k": None}
        for function in ("sigmoid", "softmax", "none"):
            yield SENTENCES[4], {"top_k": None, "function_to_apply": function}
    elif task == "token-classification":
        for strategy in ("none", "simple", "first", "average", "max"):
            for text in SENTENCES:
                yield text, {"aggregation_strategy": strategy}
        yield SENTENCES[0], {"aggregation_strategy": "simple", "ignore_labels": ["O", "PER"]}
        yield SENTENCES[0], {"aggregation_strategy": "none", "ignore_labels": []}
        # Longer than the model may see: cut, or read in overlapping windows.
        yield CONTEXT, {"aggregation_strategy": "first"}
        yield CONTEXT, {"aggregation_strategy": "first", "stride": 12}
    elif task == "question-answering":
        for question in QUESTIONS:
            for context in (CONTEXT[:70], LONG_CONTEXT):
                for options in ({}, {"top_k": 3}, {"handle_impossible_answer": True, "top_k": 2}):
                    yield {"question": question, "context": context}, options
        yield {"question": QUESTIONS[0], "context": LONG_CONTEXT}, {"max_answer_len": 2, "top_k": 3}
        yield {"question": QUESTIONS[1], "context": LONG_CONTEXT}, {"align_to_words": False, "top_k": 3}
        yield {"question": QUESTIONS[2], "context": LONG_CONTEXT}, {"max_seq_len": 32, "doc_stride": 8, "top_k": 3}


def plain(value):
    """numpy scalars to Python's."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value


def ask(run, task, question, options):
    """The answer as a list, also where transformers unwraps a single one (fill-mask: a list for each mask)."""
    answer = plain(run(question, **options))
    if isinstance(answer, dict):
        answer = [answer]
    if task == "fill-mask" and isinstance(answer[0], dict):
        answer = [answer]
    return answer


def apart(answer):
    """Are ranked scores far enough from each other?"""
    scores = [row["score"] for row in answer]
    return all(a - b > 1e-4 * abs(a) for a, b in zip(scores, scores[1:]))


def write():
    shutil.rmtree(OUT, ignore_errors=True)
    for name, (task, model) in models().items():
        folder = OUT / name
        model.save_pretrained(folder)
        tiny.save_tokenizer(folder, MAX_LENGTH)
        run = pipeline(task, model=str(folder), device="cpu")
        cases = []
        for question, options in questions(task):
            answer = ask(run, task, question, options)
            for ranked in answer if task == "fill-mask" else [answer]:
                if task != "token-classification":
                    assert apart(ranked), f"{name}: {question} {options}: scores too close: {ranked}"
            cases.append({"input": question, "options": options, "output": answer})
        check_variety(name, cases)
        tiny.write_json(folder / "expected.json", cases)
    print(f"{tiny.tidy(OUT)} bytes")


def check_variety(name, cases):
    """The fixture must be able to tell right from wrong."""
    outputs = [row for case in cases for row in case["output"]]
    if name == "classify_single":
        assert len({row["label"] for case in cases for row in case["output"][:1]}) >= 2
    if name == "tag":
        assert {row.get("entity") for row in outputs} >= {"B-PER", "I-PER", "B-LOC", "I-LOC"}
        groups = [
            json.dumps([c["output"] for c in cases if c["options"] == {"aggregation_strategy": s}])
            for s in ("simple", "first", "average", "max")
        ]
        assert len(set(groups)) == 4, "two aggregation strategies give the same answers"
    if name == "answer":
        assert any(row["answer"] == "" for row in outputs) and any(
            c["output"][0]["answer"] == "" for c in cases if c["options"].get("handle_impossible_answer")
        ), "no impossible answer wins"
        assert any(
            c["output"][0]["answer"] != "" for c in cases if c["options"].get("handle_impossible_answer")
        ), "the impossible answer always wins"


def same(want, got, where):
    if isinstance(want, float) and isinstance(got, float):
        assert abs(want - got) <= TOLERANCE * max(1.0, abs(want)), f"{where}: {want} is now {got}"
    elif isinstance(want, dict) and isinstance(got, dict):
        assert want.keys() == got.keys(), f"{where}: {want} is now {got}"
        for key in want:
            same(want[key], got[key], f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list):
        assert len(want) == len(got), f"{where}: {want} is now {got}"
        for i, (w, g) in enumerate(zip(want, got)):
            same(w, g, f"{where}[{i}]")
    else:
        assert want == got, f"{where}: {want!r} is now {got!r}"


def check():
    known = transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()
    for name, (task, _) in models().items():
        if task not in known:
            print(f"{name}: transformers {transformers.__version__} has no {task}")
            continue
        run = pipeline(task, model=str(OUT / name), device="cpu")
        differences = 0
        for i, case in enumerate(json.loads((OUT / name / "expected.json").read_text())):
            try:
                same(case["output"], ask(run, task, case["input"], case["options"]), f"{name}[{i}]")
            except AssertionError as difference:
                differences += 1
                print(difference)
        print(f"{name}: {differences} differences with transformers {transformers.__version__}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    check() if "--check" in sys.argv[1:] else write()
