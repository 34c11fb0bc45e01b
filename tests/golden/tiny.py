"""What the tiny text models share: a WordPiece vocabulary any text can be written in, and random weights."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
DIGITS = [str(d) for d in range(10)]
PUNCTUATION = list(".,;:!?'\"()-/&%$#@*+=<>[]")
WORDS = (
    "the a of and to in is was that it he she for on with as at by not be his her had you they have "
    "but from this one all are were which there when who will more no out up so what about into "
    "time man old new good great little day way world river city house paris london berlin john mary "
    "smith lives works went came said see read write model test question answer word sentence long"
).split()
ENDINGS = "##ed ##ing ##er ##ly ##tion ##ment ##ness ##es ##al ##ous ##able ##ic ##ity ##th ##an".split()
VOCABULARY = [
    *SPECIAL,
    *PUNCTUATION,
    *DIGITS,
    *LETTERS,
    *("##" + c for c in LETTERS + DIGITS),
    *(w for w in WORDS if len(w) > 1),
    *ENDINGS,
]
assert len(set(VOCABULARY)) == len(VOCABULARY)


def tokenizer(max_length):
    """The bert-base-uncased pipeline over VOCABULARY."""
    pipeline = Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    pipeline.normalizer = normalizers.BertNormalizer(lowercase=True)
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pipeline.decoder = decoders.WordPiece()
    pipeline.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return BertTokenizerFast(tokenizer_object=pipeline, do_lower_case=True, model_max_length=max_length)


def save_tokenizer(folder, max_length):
    """Writes tokenizer.json, tokenizer_config.json and vocab.txt."""
    tok = tokenizer(max_length)
    tok.save_pretrained(folder)
    (Path(folder) / "vocab.txt").write_text("".join(f"{w}\n" for w in VOCABULARY))
    return tok


def config(**changes):
    """A config for VOCABULARY: 12 wide, a few kilobytes of weights."""
    values = dict(
        vocab_size=len(VOCABULARY),
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=19,
        max_position_embeddings=48,
        type_vocab_size=2,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
    )
    values.update(changes)
    return BertConfig(**values, attn_implementation="eager")


def randomise(model, seed, scale=0.3):
    """Gives every parameter a value that matters: the default zeros for biases and ones for
    LayerNorm gains would hide an engine that forgets to read them."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=g, dtype=torch.float64)
            values = 1.0 + 0.3 * noise if "LayerNorm.weight" in name else scale * noise
            p.copy_(values.to(p.dtype))
        head = getattr(getattr(model, "cls", None), "predictions", None)
        if head is not None:
            # Two names for one bias: files that store both store the same numbers.
            head.decoder.bias.copy_(head.bias)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model.eval()


def write_json(path, value):
    Path(path).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def tidy(folder):
    """Ordinary permissions, and the number of bytes written."""
    files = [f for f in Path(folder).rglob("*") if f.is_file()]
    for file in files:
        file.chmod(0o644)
    return sum(f.stat().st_size for f in files)
