"""Writes tests/golden/families/: tiny random models of BERT's relatives, and what `transformers` computes from them.

    python tests/golden/make_families.py

Each folder MODEL_HEAD holds config.json, model.safetensors, inputs.safetensors (with `labels` where the head has a loss)
and expected.safetensors: every tensor of the forward pass under its name, `loss`, and `grad.PARAMETER` for every
parameter. Float64 results rounded to f32, without dropout; the script fails if f32 results are
further than TOLERANCE from them.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parent / "families"
TOLERANCE = 1e-5

COMMON = dict(initializer_range=0.2, attn_implementation="eager")
BERT_KEYS = dict(
    vocab_size=37, hidden_size=18, num_hidden_layers=2, num_attention_heads=3, intermediate_size=23,
    max_position_embeddings=17, **COMMON,
)
ROBERTA = dict(BERT_KEYS, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
DISTILBERT = dict(
    vocab_size=37, dim=18, n_layers=2, n_heads=3, hidden_dim=23, max_position_embeddings=17, pad_token_id=0, **COMMON
)
ELECTRA = dict(BERT_KEYS, embedding_size=10, pad_token_id=0)
ALBERT = dict(BERT_KEYS, embedding_size=10, pad_token_id=0, num_hidden_layers=3, num_hidden_groups=2)
# A window of two tokens to either side in layers 1 and 2. Its eager attention has a softmax in f32 even of float64.
MODERN_BERT = dict(
    vocab_size=37, hidden_size=18, num_hidden_layers=4, num_attention_heads=3, intermediate_size=23,
    max_position_embeddings=17, local_attention=4, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1,
    sep_token_id=2, **dict(COMMON, attn_implementation="sdpa"),
)
BIASES = dict(norm_bias=True, attention_bias=True, mlp_bias=True, classifier_bias=True, decoder_bias=False)
NOMIC_BERT = dict(BERT_KEYS, pad_token_id=0)
# Long enough for every bucket of distances, on both sides of their edges.
MPNET = dict(
    vocab_size=37, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=13,
    max_position_embeddings=150, pad_token_id=1, layer_norm_eps=1e-5, **COMMON,
)
# Another window in each layer, both shorter than the sequences.
LONGFORMER = dict(ROBERTA, max_position_embeddings=19, attention_window=[4, 6], sep_token_id=2)
# Sparse from 15 tokens on.
BIG_BIRD = dict(
    BERT_KEYS, max_position_embeddings=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, sep_token_id=2, block_size=2,
    num_random_blocks=1,
)
# Buckets that sequences of 11 tokens reach beyond, on both sides.
DEBERTA = dict(
    BERT_KEYS, pad_token_id=0, relative_attention=True, position_buckets=4, norm_rel_ebd="layer_norm", share_att_key=True,
    pos_att_type=["p2c", "c2p"], position_biased_input=False, layer_norm_eps=1e-7,
)
LABELS = dict(num_labels=4)

# Folder: class, configuration.
CASES = {
    "bert_question": ("BertForQuestionAnswering", dict(BERT_KEYS, pad_token_id=0)),
    "roberta_base": ("RobertaModel", ROBERTA),
    "roberta_masked_lm": ("RobertaForMaskedLM", ROBERTA),
    # Padding other than 1, so that positions begin elsewhere.
    "roberta_sequence": ("RobertaForSequenceClassification", dict(ROBERTA, pad_token_id=3, **LABELS)),
    "roberta_token": ("RobertaForTokenClassification", dict(ROBERTA, **LABELS)),
    "roberta_question": ("RobertaForQuestionAnswering", ROBERTA),
    "xlm_roberta_masked_lm": ("XLMRobertaForMaskedLM", dict(ROBERTA, num_hidden_layers=1)),
    "camembert_sequence": ("CamembertForSequenceClassification", dict(ROBERTA, num_hidden_layers=1, **LABELS)),
    "distilbert_base": ("DistilBertModel", DISTILBERT),
    "distilbert_masked_lm": ("DistilBertForMaskedLM", dict(DISTILBERT, activation="relu")),
    "distilbert_sequence": ("DistilBertForSequenceClassification", dict(DISTILBERT, **LABELS)),
    "distilbert_token": ("DistilBertForTokenClassification", dict(DISTILBERT, **LABELS)),
    "distilbert_question": ("DistilBertForQuestionAnswering", DISTILBERT),
    "electra_base": ("ElectraModel", ELECTRA),
    "electra_generator": ("ElectraForMaskedLM", ELECTRA),
    "electra_discriminator": ("ElectraForPreTraining", dict(ELECTRA, hidden_act="relu")),
    # As wide as the layers: then there is no projection.
    "electra_sequence": ("ElectraForSequenceClassification", dict(ELECTRA, embedding_size=18, **LABELS)),
    "electra_token": ("ElectraForTokenClassification", dict(ELECTRA, **LABELS)),
    "electra_question": ("ElectraForQuestionAnswering", ELECTRA),
    "albert_base": ("AlbertModel", ALBERT),
    "albert_masked_lm": ("AlbertForMaskedLM", dict(ALBERT, inner_group_num=2, num_hidden_groups=1)),
    "albert_sequence": ("AlbertForSequenceClassification", dict(ALBERT, **LABELS)),
    "albert_token": ("AlbertForTokenClassification", dict(ALBERT, **LABELS)),
    "albert_question": ("AlbertForQuestionAnswering", ALBERT),
    "modernbert_base": ("ModernBertModel", MODERN_BERT),
    "modernbert_masked_lm": ("ModernBertForMaskedLM", MODERN_BERT),
    "modernbert_biases_masked_lm": ("ModernBertForMaskedLM", dict(MODERN_BERT, **BIASES)),
    "modernbert_sequence": ("ModernBertForSequenceClassification", dict(MODERN_BERT, **LABELS)),
    "modernbert_mean_sequence": (
        "ModernBertForSequenceClassification",
        dict(MODERN_BERT, classifier_pooling="mean", classifier_activation="silu", **LABELS),
    ),
    "modernbert_token": ("ModernBertForTokenClassification", dict(MODERN_BERT, **LABELS)),
    "modernbert_question": ("ModernBertForQuestionAnswering", dict(MODERN_BERT, hidden_activation="relu")),
    "mpnet_base": ("MPNetModel", MPNET),
    "mpnet_masked_lm": ("MPNetForMaskedLM", MPNET),
    "mpnet_sequence": ("MPNetForSequenceClassification", dict(MPNET, **LABELS)),
    "mpnet_token": ("MPNetForTokenClassification", dict(MPNET, **LABELS)),
    "mpnet_question": ("MPNetForQuestionAnswering", MPNET),
    "longformer_base": ("LongformerModel", LONGFORMER),
    "longformer_masked_lm": ("LongformerForMaskedLM", LONGFORMER),
    "longformer_global_masked_lm": ("LongformerForMaskedLM", dict(LONGFORMER, attention_window=4)),
    "longformer_sequence": ("LongformerForSequenceClassification", dict(LONGFORMER, **LABELS)),
    "longformer_token": ("LongformerForTokenClassification", dict(LONGFORMER, **LABELS)),
    "longformer_question": ("LongformerForQuestionAnswering", LONGFORMER),
    "big_bird_base": ("BigBirdModel", BIG_BIRD),
    "big_bird_masked_lm": ("BigBirdForMaskedLM", dict(BIG_BIRD, num_random_blocks=3)),
    "big_bird_full_masked_lm": ("BigBirdForMaskedLM", dict(BIG_BIRD, attention_type="original_full")),
    # Too short to be sparse.
    "big_bird_sequence": ("BigBirdForSequenceClassification", dict(BIG_BIRD, **LABELS)),
    "big_bird_token": (
        "BigBirdForTokenClassification",
        dict(BIG_BIRD, use_bias=False, rescale_embeddings=True, **LABELS),
    ),
    "big_bird_question": ("BigBirdForQuestionAnswering", BIG_BIRD),
    "nomic_bert_base": ("NomicBertModel", NOMIC_BERT),
    "nomic_bert_masked_lm": ("NomicBertForMaskedLM", NOMIC_BERT),
    "nomic_bert_sequence": ("NomicBertForSequenceClassification", dict(NOMIC_BERT, **LABELS)),
    "nomic_bert_token": ("NomicBertForTokenClassification", dict(NOMIC_BERT, hidden_act="gelu", **LABELS)),
    "bert_pretraining": ("BertForPreTraining", dict(BERT_KEYS, pad_token_id=0)),
    "albert_pretraining": ("AlbertForPreTraining", ALBERT),
    "big_bird_pretraining": ("BigBirdForPreTraining", dict(BIG_BIRD, attention_type="original_full")),
    "deberta_base": ("DebertaV2Model", DEBERTA),
    "deberta_masked_lm": ("DebertaV2ForMaskedLM", dict(DEBERTA, legacy=False)),
    # Layers of distances' own, and a row for each distance of up to 5.
    "deberta_own_masked_lm": (
        "DebertaV2ForMaskedLM",
        dict(DEBERTA, share_att_key=False, position_buckets=-1, max_relative_positions=5, norm_rel_ebd="none"),
    ),
    "deberta_sequence": ("DebertaV2ForSequenceClassification", dict(DEBERTA, pooler_hidden_act="tanh", **LABELS)),
    "deberta_token": (
        "DebertaV2ForTokenClassification",
        dict(DEBERTA, pos_att_type="c2p", share_att_key=False, position_biased_input=True, type_vocab_size=2, **LABELS),
    ),
    "deberta_question": ("DebertaV2ForQuestionAnswering", dict(DEBERTA, relative_attention=False, pos_att_type=[], norm_rel_ebd="none")),
}


SPARSE = ["big_bird_base", "big_bird_masked_lm", "big_bird_full_masked_lm", "big_bird_token", "big_bird_question"]
PAIR_LABELS = {
    "BertForPreTraining": "next_sentence_label",
    "AlbertForPreTraining": "sentence_order_label",
    "BigBirdForPreTraining": "next_sentence_label",
}
# Cases with global tokens of their own.
GLOBAL = ["longformer_base", "longformer_global_masked_lm", "longformer_token"]


def softmax_in_own_dtype(softmax):
    """Longformer's attention has a softmax in f32 even of float64, in which what is masked is -inf, and padding NaN."""
    return lambda x, dim=None, dtype=None, **rest: softmax(x, dim=dim, **rest)


def randomise(model, seed):
    """Values that matter for every parameter: zero biases and unit gains would hide one that is not read."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
            gain = "norm" in name.lower() and name.endswith("weight")
            p.copy_((1.0 + 0.3 * noise if gain else 0.25 * noise).to(p.dtype))
    model.tie_weights()
    return model.eval()


def old_keys(model, folder):
    """ModernBERT's config.json as its first files have it. `transformers` must read the same model from it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in ["layer_types", "rope_parameters"]:
        del config[key]
    config.update(global_attn_every_n_layers=2, global_rope_theta=500.0, local_rope_theta=100.0)
    path.write_text(json.dumps(config, indent=2) + "\n")
    return randomise(type(model).from_pretrained(folder, attn_implementation="sdpa"), 99)


def inputs_of(name, model, lengths, seed):
    config = model.config
    g = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(4, config.vocab_size, (len(lengths), width), generator=g)
    ids[0, 0] = config.vocab_size - 1
    mask = torch.zeros_like(ids)
    types = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        types[row, length // 2 : length] = 1
    ids = torch.where(mask.bool(), ids, config.pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name in GLOBAL:
        # Several tokens, the first among them or not; a padded one is none.
        inputs["global_attention_mask"] = (torch.rand(ids.shape, generator=g) < 0.3).long()
        inputs["global_attention_mask"][1, 0] = 1
    elif name == "longformer_question":
        # A question of two tokens, then a text: separators where `transformers` wants three.
        ids[:, [3, 4, -1]] = config.sep_token_id
    elif name == "big_bird_question":
        # Without token types: they follow from the question, which ends at the separator.
        ids[:, 5] = config.sep_token_id
        return {"input_ids": ids, "attention_mask": mask}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = types
    return inputs


def labels_of(model, inputs, seed):
    """Labels as a trainer gives them: some tokens have none, padding never has. By the names the class takes them under."""
    g = torch.Generator().manual_seed(seed)
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    name = type(model).__name__
    if name.endswith("SequenceClassification"):
        return {"labels": torch.randint(0, model.config.num_labels, (len(ids),), generator=g)}
    if name in PAIR_LABELS:
        chosen = (torch.rand(ids.shape, generator=g) < 0.5) & real
        chosen[0, 0] = True
        tokens = torch.randint(0, model.config.vocab_size, ids.shape, generator=g)
        pairs = torch.randint(0, 2, (len(ids),), generator=g)
        return {"labels": torch.where(chosen, tokens, -100), PAIR_LABELS[name]: pairs}
    if name.endswith("ForPreTraining"):
        return {"labels": torch.where(real, torch.randint(0, 2, ids.shape, generator=g), 0)}
    classes = {"ForMaskedLM": model.config.vocab_size, "ForTokenClassification": model.config.num_labels}
    for suffix, count in classes.items():
        if name.endswith(suffix):
            chosen = (torch.rand(ids.shape, generator=g) < 0.5) & real
            chosen[0, 0] = True
            return {"labels": torch.where(chosen, torch.randint(0, count, ids.shape, generator=g), -100)}
    if name.endswith("QuestionAnswering"):
        places = torch.randint(0, ids.shape[1], (2, len(ids)), generator=g)
        return {"start_positions": places.amin(0), "end_positions": places.amax(0)}
    return {}


# NomicBERT's files keep the names of its first implementation.
NOMIC_NAMES = [
    ("embeddings.LayerNorm", "emb_ln"), ("layers.", "encoder.layers."), ("self_attn.o_proj", "attn.out_proj"),
    ("up_proj", "fc11"), ("gate_proj", "fc12"), ("down_proj", "fc2"), ("post_attention_layernorm", "norm1"),
    ("post_mlp_layernorm", "norm2"),
]


def gradients(model):
    """Every parameter's gradient under the names that the parameter may be saved under."""
    grads = {name: p.grad for name, p in model.named_parameters(remove_duplicate=False) if p.grad is not None}
    if model.config.model_type != "nomic_bert":
        return grads
    renamed = {}
    for name, grad in grads.items():
        if "q_proj" in name:
            parts = [grads[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            name, grad = name.replace("self_attn.q_proj", "attn.Wqkv"), torch.cat(parts)
        for ours, file in NOMIC_NAMES:
            name = name.replace(ours, file)
        renamed[name] = grad
    return renamed


def run(model, inputs, labels, saved):
    model.zero_grad()
    out = model(**inputs, **labels, output_hidden_states=True, return_dict=True)
    tensors = {}
    for name, value in out.items():
        if name == "hidden_states":
            # BigBird's are still padded to whole blocks.
            width = inputs["input_ids"].shape[1]
            tensors.update({f"hidden_states.{i}": h[:, :width] for i, h in enumerate(value)})
        elif value is not None:
            tensors[name] = value
    if labels:
        out.loss.backward()
        # A tied parameter has several names, and is saved under one.
        tensors.update({f"grad.{name}": grad for name, grad in gradients(model).items() if name in saved})
    return {name: tensor.detach().double().clone() for name, tensor in tensors.items()}


def case(name, cls, config, seed):
    cls = getattr(transformers, cls)
    model = randomise(cls(cls.config_class(**config)), seed)
    folder = OUT / name
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    if name == "modernbert_masked_lm":
        model = old_keys(model, folder)
        config_file = (folder / "config.json").read_bytes()
        model.save_pretrained(folder)
        (folder / "config.json").write_bytes(config_file)
    # The loss of question answering in `transformers` depends on padding: no padding there.
    lengths = [9, 9, 9] if name.endswith("question") else [1, 11, 6]
    # BigBird pads a batch to one length, whose last block is another sequence's padding: sequences of one length.
    if name in SPARSE:
        lengths = [25, 25] if name == "big_bird_masked_lm" else [17, 17, 17]
    if name in ["mpnet_base", "mpnet_masked_lm"]:
        lengths = [148, 3]
    inputs = inputs_of(name, model, lengths, seed + 1)
    labels = labels_of(model, inputs, seed + 2)
    saved = load_file(folder / "model.safetensors").keys()
    single = run(model.float(), inputs, labels, saved)
    double = run(model.double(), inputs, labels, saved)
    padding = ~inputs["attention_mask"].bool()
    expected = {}
    for key, want in double.items():
        got = single[key]
        if want.shape[:2] == padding.shape:
            # What stands on padding means nothing.
            got[padding] = want[padding] = 0.0
        # What adds the same to all scores that a softmax compares (a key's bias, the last bias before a span head) has
        # a gradient that is 0 but for rounding.
        if key.startswith("grad.") and want.abs().max() < 1e-12:
            want.zero_()
        scale = want.abs().max().clamp(min=0.1)
        error = ((got - want).abs().max() / scale).item()
        assert error < TOLERANCE, f"{name}: f32 {key} is {error:.1e} from float64"
        expected[key] = want.float().contiguous()
    save_file({**inputs, **labels}, folder / "inputs.safetensors")
    save_file(expected, folder / "expected.safetensors")


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    torch.nn.functional.softmax = softmax_in_own_dtype(torch.nn.functional.softmax)
    shutil.rmtree(OUT, ignore_errors=True)
    for seed, (name, (cls, config)) in enumerate(CASES.items()):
        case(name, cls, config, 10 * seed)
    files = [file for file in OUT.rglob("*") if file.is_file()]
    for file in files:
        file.chmod(0o644)
    print(f"{len(CASES)} folders, {sum(file.stat().st_size for file in files)} bytes")


if __name__ == "__main__":
    main()
