"""Writes tests/golden/minilm/expected.safetensors: what sentence-transformers makes of 1,000 real sentences with the
real all-MiniLM-L6-v2.

    scripts/fetch-model.sh
    python tests/golden/make_minilm.py [MODEL_DIR]

Two thirds of the work is float64, which only measures how far the stored f32 numbers are from exact ones. See README.md.
"""

import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent
MODEL = HERE.parents[1] / "models" / "all-MiniLM-L6-v2"
OUT = HERE / "minilm"


def load(folder):
    """The model as sentence-transformers loads it, on one thread and without fused attention, whose kernels differ
    from one processor to another."""
    if not (Path(folder) / "model.safetensors").is_file():
        sys.exit(f"{folder} is not there: run scripts/fetch-model.sh first")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"attn_implementation": "eager"})


def token_ids(model, texts):
    """Ids of each text, special tokens included, cut as the model cuts them."""
    cut = model.tokenizer(texts, truncation=True, max_length=model.max_seq_length, padding=False)
    return [torch.tensor(row, dtype=torch.int32) for row in cut["input_ids"]]


def main():
    texts = (OUT / "sentences.txt").read_text(encoding="utf-8").splitlines()
    assert len(texts) == 1000
    model = load(sys.argv[1] if len(sys.argv) > 1 else MODEL)
    assert model.max_seq_length == 256

    rows = token_ids(model, texts)
    single = model.encode(texts, batch_size=32, convert_to_tensor=True)
    double = model.double().encode(texts, batch_size=32, convert_to_tensor=True)
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    assert torch.allclose(single.norm(dim=1), torch.ones(len(texts)), atol=1e-6)

    lengths = torch.tensor([0] + [len(row) for row in rows])
    expected = {
        "input_ids": torch.cat(rows),
        "cu_seqlens": lengths.cumsum(0).to(torch.int32),
        "embeddings": single.contiguous(),
    }
    target = OUT / "expected.safetensors"
    save_file(expected, target)
    target.chmod(0o644)
    error = (single.double() - double).abs().max().item()
    at_limit = int((lengths == model.max_seq_length).sum())
    print(f"{len(texts)} texts, {len(expected['input_ids'])} tokens, {lengths[1:].min()} to {lengths.max()} each")
    print(f"{at_limit} texts fill or exceed the limit; f32 against float64: {error:.1e}; {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
