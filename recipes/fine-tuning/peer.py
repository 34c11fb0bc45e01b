#!/usr/bin/env python3
"""Fine-tunes with PyTorch and transformers, by the recipe that run.py gives bertha; prints the seconds of the training loop.

AdamW without decay of biases and norms, a linear warm-up and fall, gradients cut to norm 1, the model's own dropout, f32, eager.
"""

import argparse
import csv
import json
import random
import time
from pathlib import Path

import torch
import transformers
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)


def classify(options, tokenizer):
    with open(options.train, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    text = "sentence" if "sentence" in rows[0] else "text"
    labels = sorted({row["label"] for row in rows})
    encoded = tokenizer([row[text] for row in rows], truncation=True, max_length=options.max_length)
    examples = [dict(input_ids=ids, labels=labels.index(row["label"])) for ids, row in zip(encoded["input_ids"], rows)]
    return AutoModelForSequenceClassification, examples, labels


def tag(options, tokenizer):
    sentences = [[]]
    for line in Path(options.train).read_text().split("\n"):
        if not line.strip():
            sentences.append([])
        else:
            sentences[-1].append(line.split("\t"))
    sentences = [sentence for sentence in sentences if sentence]
    labels = sorted({tag for sentence in sentences for _, tag in sentence})
    examples = []
    for sentence in sentences:
        words, tags = zip(*sentence)
        encoded = tokenizer(list(words), is_split_into_words=True, truncation=True, max_length=options.max_length)
        seen, targets = None, []
        for word in encoded.word_ids():
            targets.append(labels.index(tags[word]) if word is not None and word != seen else -100)
            seen = word
        examples.append(dict(input_ids=encoded["input_ids"], labels=targets))
    return AutoModelForTokenClassification, examples, labels


def answer(options, tokenizer):
    examples = []
    for article in json.loads(Path(options.train).read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                found = question["answers"][0]
                start, end = found["answer_start"], found["answer_start"] + len(found["text"])
                encoded = tokenizer(
                    question["question"].strip(), paragraph["context"], truncation="only_second", max_length=options.max_length,
                    stride=options.stride, return_overflowing_tokens=True, return_offsets_mapping=True,
                )
                for window, ids in enumerate(encoded["input_ids"]):
                    kinds = encoded.sequence_ids(window)
                    offsets = encoded["offset_mapping"][window]
                    inside = [i for i, kind in enumerate(kinds) if kind == 1]
                    first = last = 0
                    if offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= end:
                        first = max(i for i in inside if offsets[i][0] <= start)
                        last = min(i for i in inside if offsets[i][1] >= end)
                    types = encoded["token_type_ids"][window]
                    examples.append(dict(input_ids=ids, token_type_ids=types, start_positions=first, end_positions=last))
    return AutoModelForQuestionAnswering, examples, None


def collate(examples, padding):
    width = max(len(example["input_ids"]) for example in examples)
    pad = lambda values, value: values + [value] * (width - len(values))
    batch = {}
    for key in examples[0]:
        values = [example[key] for example in examples]
        if isinstance(values[0], list):
            fill = {"input_ids": padding, "labels": -100}.get(key, 0)
            values = [pad(value, fill) for value in values]
        batch[key] = torch.tensor(values)
    batch["attention_mask"] = torch.tensor([pad([1] * len(example["input_ids"]), 0) for example in examples])
    return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["classify", "tag", "answer"], required=True)
    for name in ("model", "train", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("epochs", "batch-size", "max-length", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--stride", type=int)
    for name in ("learning-rate", "warmup-ratio"):
        parser.add_argument(f"--{name}", type=float, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    order = random.Random(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model_class, examples, labels = {"classify": classify, "tag": tag, "answer": answer}[options.task](options, tokenizer)
    names = {}
    if labels:
        names = dict(num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={name: i for i, name in enumerate(labels)})
    model = model_class.from_pretrained(options.model, **names)
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)
    steps = options.epochs * -(-len(examples) // options.batch_size)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(options.warmup_ratio * steps), steps)
    model.train()
    start = time.monotonic()
    for _ in range(options.epochs):
        order.shuffle(examples)
        for at in range(0, len(examples), options.batch_size):
            batch = collate(examples[at : at + options.batch_size], tokenizer.pad_token_id)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    seconds = time.monotonic() - start
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(json.dumps({"seconds": seconds, "loss": loss.item()}))


if __name__ == "__main__":
    main()
