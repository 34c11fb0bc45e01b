"""Writes tests/golden/gradients/: losses and their gradients, as PyTorch computes them from the tiny BERTs of
tests/golden/bert/.

    python tests/golden/make_gradients.py

Each folder NAME holds labels.safetensors (`labels`, as the head's class in `transformers` takes them) and
expected.safetensors: `loss`, and `grad.PARAMETER` for every parameter, for the inputs of bert/NAME. Float64 results
rounded to f32; no dropout.
"""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
OUT = HERE / "gradients"


def labels_of(model, inputs, seed):
    """Labels that a trainer would give: most tokens of a masked LM have none, padding never has."""
    g = torch.Generator().manual_seed(seed)
    ids = inputs["input_ids"]
    real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
    name = type(model).__name__
    if name.endswith("ForMaskedLM"):
        labels = torch.randint(0, model.config.vocab_size, ids.shape, generator=g)
        chosen = torch.rand(ids.shape, generator=g) < 0.4
        chosen[0, 0] = True
        return torch.where(chosen & real, labels, -100)
    if name.endswith("ForTokenClassification"):
        labels = torch.randint(0, model.config.num_labels, ids.shape, generator=g)
        chosen = torch.rand(ids.shape, generator=g) < 0.8
        chosen[0, 0] = True
        return torch.where(chosen & real, labels, -100)
    rows = len(ids)
    if model.config.num_labels == 1:
        return torch.randn(rows, generator=g)
    if model.config.problem_type == "multi_label_classification":
        return (torch.rand(rows, model.config.num_labels, generator=g) < 0.5).float()
    return torch.randint(0, model.config.num_labels, (rows,), generator=g)


def case(name, seed):
    source = HERE / "bert" / name
    config = transformers.AutoConfig.from_pretrained(source)
    cls = getattr(transformers, config.architectures[0])
    model = cls.from_pretrained(source, attn_implementation="eager", torch_dtype=torch.float32).double().eval()
    inputs = load_file(source / "inputs.safetensors")
    labels = labels_of(model, inputs, seed)
    given = labels.double() if labels.is_floating_point() else labels
    loss = model(**inputs, labels=given).loss
    loss.backward()
    folder = OUT / name
    folder.mkdir(parents=True)
    expected = {"loss": loss.detach().float()}
    for parameter, value in model.named_parameters():
        if value.grad is not None:
            expected[f"grad.{parameter}"] = value.grad.float().contiguous()
    save_file({"labels": labels}, folder / "labels.safetensors")
    save_file(expected, folder / "expected.safetensors")
    print(name, float(loss), len(expected) - 1, "gradients")


def main():
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    names = (
        "masked_lm_tied",
        "masked_lm_untied",
        "sequence_classification",
        "sequence_regression",
        "token_classification",
    )
    for seed, name in enumerate(names):
        case(name, seed)


if __name__ == "__main__":
    main()
