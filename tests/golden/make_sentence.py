"""Writes tests/golden/sentence/: tiny sentence-transformers folders, one for each kind of pooling, and the
embeddings `sentence-transformers` computes from them.

    python tests/golden/make_sentence.py

The expected embeddings are float64 results rounded to f32, checked against the f32 ones. See README.md.
"""

import json
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.base.modules.normalize import Normalize
from sentence_transformers.base.modules.transformer import Transformer
from sentence_transformers.sentence_transformer.modules.pooling import Pooling
from transformers import BertModel

import tiny

OUT = Path(__file__).resolve().parent / "sentence"
MAX_LENGTH = 32
TOLERANCE = 1e-5
TEXTS = [
    "The old man went to the river.",
    "",
    "a",
    "She lives in London, and he works in Paris!",
    "  A sentence with spaces around it \t",
    "UPPER CASE AND Ünïcödé accents: café, naïve.",
    "What is a good question? Write an answer (not too long) & read it.",
    "世界 is not in the vocabulary",
    "Numbers: 3.14159, 42% of $1,000 = 420",
    "the the the the the the the the",
    "This is a very long sentence which was written so that it does not fit into the thirty-two tokens that the "
    "model is allowed to see, and more words follow it all the same.",
    "unbelievableness",
    'John Smith said: "the model is new" - and John\'s [MASK] word?',
]


def build(name, backbone, *modules, prompts=None, default_prompt=None):
    """Assembles and saves one folder."""
    transformer = Transformer(str(backbone))
    model = SentenceTransformer(
        modules=[transformer, *modules], device="cpu", prompts=prompts, default_prompt_name=default_prompt
    )
    folder = OUT / name
    model.save(str(folder), create_model_card=False)
    shutil.copy(backbone / "vocab.txt", folder)
    return folder


def embed(folder, **kwargs):
    """Embeddings by the folder as it was saved, float64 rounded to f32."""
    model = SentenceTransformer(str(folder), device="cpu")
    options = dict(convert_to_tensor=True, batch_size=4, **kwargs)
    single = model.encode(TEXTS, **options)
    double = model.double().encode(TEXTS, **options)
    assert double.dtype == torch.float64
    error = ((single.double() - double).abs().max() / double.abs().max()).item()
    assert error < TOLERANCE, f"{folder}: f32 is {error:.1e} from float64"
    return double.float().contiguous(), error


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()

    # Saved without modules.json: sentence-transformers then pools the mean and does not normalise.
    plain = OUT / "plain"
    backbone = tiny.randomise(BertModel(tiny.config()), 1)
    backbone.save_pretrained(plain)
    tok = tiny.save_tokenizer(plain, MAX_LENGTH)

    width = backbone.config.hidden_size
    pool = lambda mode, **more: Pooling(width, mode, **more)
    build("cls", plain, pool("cls"))
    build("mean", plain, pool("mean"), Normalize())
    build("max", plain, pool("max"))
    build("mean_sqrt_len", plain, pool("mean_sqrt_len_tokens"))
    build("weightedmean", plain, pool("weightedmean"))
    build("lasttoken", plain, pool("lasttoken"), Normalize())
    build("concatenated", plain, pool(("cls", "max", "mean")), Normalize())

    dense = Dense(width, 7, activation_function=torch.nn.Tanh())
    build("dense", plain, pool("mean"), tiny.randomise(dense, 2), Normalize())
    linear = Dense(width, 5, bias=False, activation_function=torch.nn.Identity())
    build("dense_linear", plain, pool("cls"), tiny.randomise(linear, 3))

    prompts = {"query": "what is it: ", "passage": "passage: "}
    build("prompt", plain, pool("mean"), prompts=prompts, default_prompt="query")
    build("prompt_excluded", plain, pool("mean", include_prompt=False), prompts=prompts, default_prompt="query")

    # The same folder in the words of versions 2 to 5: booleans for the pooling, old module paths, and the
    # limit in sentence_bert_config.json (shorter here than the tokenizer's own).
    legacy = build("legacy", plain, pool("mean_sqrt_len_tokens"), Normalize())
    modules = json.loads((legacy / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rsplit(".", 1)[1]
    tiny.write_json(legacy / "modules.json", modules)
    tiny.write_json(
        legacy / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": width,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": True,
        },
    )
    tiny.write_json(legacy / "sentence_bert_config.json", {"max_seq_length": 20, "do_lower_case": False})

    worst = 0.0
    for folder in sorted(p for p in OUT.iterdir()):
        expected = {}
        expected["embeddings"], error = embed(folder)
        worst = max(worst, error)
        if folder.name.startswith("prompt"):
            for name in prompts:
                expected[f"embeddings.{name}"], _ = embed(folder, prompt_name=name)
            expected["embeddings.none"], _ = embed(folder, prompt="")
            assert torch.equal(expected["embeddings"], expected["embeddings.query"])
        save_file(expected, folder / "expected.safetensors")

    ids = tok(TEXTS, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    tiny.write_json(OUT / "texts.json", [{"text": text, "ids": row} for text, row in zip(TEXTS, ids)])
    print(f"f32 against float64, relative: {worst:.1e}; {tiny.tidy(OUT)} bytes")


if __name__ == "__main__":
    main()
