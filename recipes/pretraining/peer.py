#!/usr/bin/env python3
"""Pre-trains with PyTorch and transformers, on the blocks that bertha cuts, by the recipe that run.py gives both.

AdamW without decay of biases and norms, linear warm-up and fall, gradients cut to norm 1, f32, 15 % of the tokens masked anew
in every epoch, logits of the masked positions alone.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
import transformers


def blocks(path, tokenizer, length):
    """`[CLS] text [SEP]`: lines while they fit, the long ones cut; none goes on into the next book."""
    room = length - 2
    made, block = [], []

    def flush():
        if block:
            made.append([tokenizer.cls_token_id, *block, tokenizer.sep_token_id])
            block.clear()

    for book in Path(path).read_text().split("\n\n"):
        lines = book.strip().split("\n")
        for ids in tokenizer(lines, add_special_tokens=False)["input_ids"]:
            if len(block) + len(ids) > room:
                flush()
            for id in ids:
                if len(block) == room:
                    flush()
                block.append(id)
        flush()
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("config", "tokenizer", "data", "output"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("max-length", "batch-size", "steps", "save-steps", "threads", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("learning-rate", "warmup-ratio"):
        parser.add_argument(f"--{name}", type=float, required=True)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.tokenizer)
    examples = [dict(input_ids=ids) for ids in blocks(options.data, tokenizer, options.max_length)]
    tokens = sum(len(example["input_ids"]) for example in examples)
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    model = transformers.BertForMaskedLM(transformers.BertConfig.from_json_file(options.config))
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(options.warmup_ratio * options.steps), options.steps)
    order = random.Random(options.seed)
    model.train()
    step, seen, start = 0, 0, time.monotonic()

    def save(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    while step < options.steps:
        order.shuffle(examples)
        for at in range(0, len(examples), options.batch_size):
            batch = collate(examples[at : at + options.batch_size])
            labels = batch["labels"].reshape(-1)
            rows = (labels != -100).nonzero()[:, 0]
            seen += int(batch["attention_mask"].sum())
            hidden = model.bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            logits = model.cls(hidden.reshape(-1, hidden.shape[-1])[rows])
            loss = torch.nn.functional.cross_entropy(logits, labels[rows])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % options.save_steps == 0:
                save(f"{options.output}/checkpoints/step-{step}")
            if step == options.steps:
                break
    seconds = time.monotonic() - start
    save(options.output)
    print(json.dumps(dict(seconds=seconds, tokens_per_second=seen / seconds, examples=len(examples), tokens=tokens, loss=loss.item())))


if __name__ == "__main__":
    main()
