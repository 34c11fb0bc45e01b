"""Writes tests/golden/bert/: tiny random BERT checkpoints and what `transformers` computes from them.

    python tests/golden/make_bert.py

Each folder holds config.json, model.safetensors, inputs.safetensors and expected.safetensors.
The expected numbers are float64 results rounded to f32; the script fails if the f32 (eager
attention) results are further than TOLERANCE from them. See README.md for versions and for how
to compare.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

HERE = Path(__file__).resolve().parent
OUT = HERE / "bert"
TOLERANCE = 1e-5
WORST = []


def config(**changes):
    """A small config; every case changes what it is about."""
    values = dict(
        vocab_size=101,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=37,
        max_position_embeddings=20,
        type_vocab_size=2,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        initializer_range=0.2,
    )
    values.update(changes)
    return BertConfig(**values, attn_implementation="eager")


def randomise(model, seed):
    """Gives every parameter a value that matters: the default zeros for biases and ones for
    LayerNorm gains would hide an engine that forgets to read them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
            values = 1.0 + 0.3 * noise if "LayerNorm.weight" in name else 0.2 * noise
            p.copy_(values.to(p.dtype))
        head = getattr(getattr(model, "cls", None), "predictions", None)
        if head is not None:
            # Two names for one bias: files that store both store the same numbers.
            head.decoder.bias.copy_(head.bias)
    model.tie_weights()
    return model.eval()


def batch(cfg, lengths, seed, token_types=True, mask=True):
    """Random ids, padded on the right with 0; segment 1 starts in the middle of each row."""
    g = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, cfg.vocab_size, (len(lengths), width), generator=g)
    attention = torch.zeros_like(ids)
    types = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        attention[row, :length] = 1
        types[row, length // 2 : length] = 1
    # The largest id and the smallest are where an off-by-one shows.
    ids[0, 0] = cfg.vocab_size - 1
    ids = ids * attention
    inputs = {"input_ids": ids}
    if mask:
        inputs["attention_mask"] = attention
    if token_types:
        inputs["token_type_ids"] = types
    return inputs


def run(model, inputs, hidden):
    """Every floating tensor the model returns, under transformers' names."""
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=hidden, return_dict=True)
    tensors = {}
    for name, value in out.items():
        if name == "hidden_states":
            tensors.update({f"hidden_states.{i}": h for i, h in enumerate(value)})
        elif value is not None:
            tensors[name] = value
    return tensors


def reference(name, model, inputs, hidden):
    """float64 results as f32, after a check that f32 agrees."""
    single = run(model.float(), inputs, hidden)
    double = run(model.double(), inputs, hidden)
    valid = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
    expected = {}
    for key, want in double.items():
        got = single[key].double()
        if want.dim() == 3 or key in ("start_logits", "end_logits"):
            # Per token: what stands on padding means nothing, so nobody should depend on it.
            got[~valid] = want[~valid] = 0.0
        error = ((got - want).abs().max() / want.abs().max()).item()
        WORST.append((error, name, key))
        assert error < TOLERANCE, f"{name}: f32 {key} is {error:.1e} from float64"
        assert want.abs().max() > 0.05, f"{name}: {key} is all but zero"
        expected[key] = want.float().contiguous()
    model.float()
    return expected


def rename(folder, change, extra=None):
    """Rewrites model.safetensors with other tensor names, as other writers would have named them."""
    path = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        tensors.update(change(name, tensor))
    tensors.update(extra or {})
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata={"format": "pt"})


def case(name, model, lengths, seed, *, hidden=True, dtype=None, token_types=True, mask=True, **save):
    folder = OUT / name
    folder.mkdir(parents=True)
    randomise(model, seed)
    if dtype is not None:
        # Round the weights first: expected values are those of the stored numbers, upcast.
        model.to(dtype).save_pretrained(folder, **save)
        model.float()
    else:
        model.save_pretrained(folder, **save)
    inputs = batch(model.config, lengths, seed + 1, token_types, mask)
    save_file(inputs, folder / "inputs.safetensors")
    save_file(reference(name, model, inputs, hidden), folder / "expected.safetensors")
    return folder


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(OUT, ignore_errors=True)
    labels = lambda *names: dict(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})

    # The bare model, with and without pooler; head dimensions 12, 8, 7, 25.
    case(
        "base_pooler",
        BertModel(config(hidden_size=36, num_attention_heads=3, intermediate_size=50, vocab_size=61)),
        [1, 13, 7, 2, 13],
        10,
    )
    case(
        "no_pooler_gelu_new",
        BertModel(
            config(
                hidden_size=40,
                num_attention_heads=5,
                num_hidden_layers=1,
                intermediate_size=53,
                hidden_act="gelu_new",
                layer_norm_eps=1e-7,
            ),
            add_pooling_layer=False,
        ),
        [11, 5, 1],
        20,
    )
    folder = case(
        "prefixed_relu",
        BertModel(
            config(hidden_size=21, num_attention_heads=3, intermediate_size=31, hidden_act="relu", layer_norm_eps=1e-7)
        ),
        [3, 1, 9, 8],
        30,
    )
    rename(folder, lambda k, v: {f"bert.{k}": v})
    case("act_silu", BertModel(config(num_hidden_layers=1, hidden_act="silu"), add_pooling_layer=False), [6, 4], 40)
    case(
        "act_gelu_tanh",
        BertModel(config(num_hidden_layers=1, hidden_act="gelu_pytorch_tanh"), add_pooling_layer=False),
        [6, 4],
        45,
    )
    case("act_tanh", BertModel(config(num_hidden_layers=1, hidden_act="tanh"), add_pooling_layer=False), [6, 4], 50)
    # One head as wide as the model, every position in use, and neither mask nor token types given.
    case(
        "one_head_full_length",
        BertModel(
            config(
                hidden_size=25, num_attention_heads=1, num_hidden_layers=1, max_position_embeddings=9, type_vocab_size=1
            ),
        ),
        [9, 9, 9],
        60,
        token_types=False,
        mask=False,
    )
    # Long enough for an attention that streams over blocks of keys to meet several.
    case(
        "long",
        BertModel(
            config(num_attention_heads=3, num_hidden_layers=1, max_position_embeddings=200), add_pooling_layer=False
        ),
        [200, 1, 129],
        70,
        hidden=False,
    )
    case("sharded", BertModel(config(num_hidden_layers=1)), [4, 7], 75, max_shard_size="12KB")

    # The four heads. Masked LM: decoder tied and absent, named the old way, and untied.
    case("masked_lm_tied", BertForMaskedLM(config(vocab_size=103, num_hidden_layers=1)), [8, 1, 12], 80)
    case(
        "masked_lm_untied",
        BertForMaskedLM(config(vocab_size=103, num_hidden_layers=1, tie_word_embeddings=False)),
        [5, 9],
        85,
    )
    pretraining = BertForPreTraining(config(vocab_size=97, layer_norm_eps=1e-7, hidden_act="gelu_new"))
    legacy_masked_lm(pretraining)
    case(
        "sequence_classification",
        BertForSequenceClassification(
            config(
                hidden_size=36, num_attention_heads=3, num_hidden_layers=1, **labels("negative", "neutral", "positive")
            )
        ),
        [1, 10, 6, 3],
        100,
    )
    case(
        "sequence_regression",
        BertForSequenceClassification(
            config(num_labels=1, num_hidden_layers=1, hidden_act="relu", problem_type="regression")
        ),
        [7, 2, 12],
        110,
    )
    case(
        "token_classification",
        BertForTokenClassification(
            config(
                hidden_size=40,
                num_attention_heads=5,
                num_hidden_layers=1,
                hidden_act="gelu_new",
                **labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
            )
        ),
        [9, 1, 4],
        120,
    )
    case(
        "question_answering",
        BertForQuestionAnswering(config(hidden_size=21, num_attention_heads=3, layer_norm_eps=1e-7)),
        [12, 5, 1],
        130,
    )

    # Half-precision files.
    case("bf16", BertModel(config()), [6, 1, 11], 140, dtype=torch.bfloat16)
    case(
        "f16",
        BertForTokenClassification(config(num_hidden_layers=1, num_labels=4)),
        [6, 1, 11],
        150,
        dtype=torch.float16,
    )

    for file in OUT.rglob("*.*"):
        file.chmod(0o644)
    WORST.sort(reverse=True)
    print("f32 against float64, relative to the tensor's largest value; the worst three:")
    for error, name, key in WORST[:3]:
        print(f"  {error:.1e}  {name} {key}")
    size = sum(f.stat().st_size for f in OUT.rglob("*") if f.is_file())
    print(f"{len(list(OUT.iterdir()))} folders, {size} bytes")


def legacy_masked_lm(model):
    """A checkpoint as 2019 wrote it: gamma/beta, `bert.` prefix, decoder stored although tied, pooler
    and next-sentence head present, the position_ids buffer, and a config with few keys."""
    name = "masked_lm_legacy"
    folder = case(name, model, [2, 10, 1], 90)
    full = load_file(folder / "expected.safetensors")
    full["logits"] = full.pop("prediction_logits")
    full.pop("seq_relationship_logits")
    save_file(full, folder / "expected.safetensors")

    def old_names(k, v):
        return {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v}

    weights = model.state_dict()
    rename(
        folder,
        old_names,
        {
            "cls.predictions.decoder.weight": weights["bert.embeddings.word_embeddings.weight"].clone(),
            "bert.embeddings.position_ids": torch.arange(model.config.max_position_embeddings)[None],
        },
    )
    keep = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size "
        "max_position_embeddings hidden_act layer_norm_eps"
    ).split()
    old = {k: getattr(model.config, k) for k in keep}
    old["architectures"] = ["BertForMaskedLM"]
    old["model_type"] = "bert"
    (folder / "config.json").write_text(json.dumps(old, indent=2) + "\n")


if __name__ == "__main__":
    main()
