"""Writes BERT folders with random weights: two shapes, the same numbers each time.

    python make_models.py FOLDER        # FOLDER/base, FOLDER/minilm

Weights are scaled so that activations stay near 1 and attention is neither uniform nor one-hot: an
engine that computed something else would not go unseen.
"""

import json
import math
import sys
from pathlib import Path

SHAPES = {
    # As in BERT-base and all-MiniLM-L6-v2.
    "base": {"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072},
    "minilm": {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
}
HEADS = 12


def title(shape):
    """The shape in words."""
    sizes = SHAPES[shape]
    return f"{sizes['num_hidden_layers']} layers, {sizes['hidden_size']} wide, {HEADS} heads"


def configuration(shape):
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "num_attention_heads": HEADS,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "pad_token_id": 0,
        **SHAPES[shape],
    }


def weights(config):
    """The tensors of `BertModel` without its pooler, f32, named as in `transformers`."""
    import numpy

    random = numpy.random.default_rng(0)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    tensors = {}

    def uniform(name, shape, bound, centre=0.0):
        values = random.random(shape, dtype=numpy.float32)
        tensors[name] = ((values * 2 - 1) * bound + centre).astype(numpy.float32)

    def linear(name, outputs, inputs):
        uniform(f"{name}.weight", (outputs, inputs), math.sqrt(3 / inputs))
        uniform(f"{name}.bias", (outputs,), 0.1)

    def layer_norm(name):
        uniform(f"{name}.weight", (hidden,), 0.1, centre=1.0)
        uniform(f"{name}.bias", (hidden,), 0.1)

    for table, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", config["type_vocab_size"]),
    ):
        uniform(f"embeddings.{table}_embeddings.weight", (rows, hidden), 0.1)
    layer_norm("embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        layer_norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", inner, hidden)
        linear(f"{layer}.output.dense", hidden, inner)
        layer_norm(f"{layer}.output.LayerNorm")
    return tensors


def make(shape, folder):
    """The model folder of a shape under `folder`, written unless it is there."""
    folder = Path(folder) / shape
    config = configuration(shape)
    text = json.dumps(config, indent=2) + "\n"
    # config.json is written last: a folder that has it is whole.
    config_file = folder / "config.json"
    if config_file.is_file() and config_file.read_text() == text:
        return folder

    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config_file.unlink(missing_ok=True)
    save_file(weights(config), folder / "model.safetensors", metadata={"format": "pt"})
    config_file.write_text(text)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name in SHAPES:
        print(make(name, sys.argv[1]))
