"""Writes tests/golden/loss_curve/: 50 steps of AdamW from the tiny masked LM of tests/golden/bert/masked_lm_tied.

    python tests/golden/make_loss_curve.py

batches.safetensors holds `input_ids` and `labels` [batches, B, T], taken in turn; expected.safetensors the `losses` [50]
before each step, and the final weights under `transformers`' names. f32, no dropout, weight decay 0.01 on all but biases
and LayerNorms, gradients clipped to norm 1, learning rate 3e-3.
"""

import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "bert" / "masked_lm_tied"
OUT = HERE / "loss_curve"
STEPS, BATCHES, ROWS, TOKENS = 50, 7, 4, 9


def main():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(7)
    model = transformers.BertForMaskedLM.from_pretrained(SOURCE, attn_implementation="eager").float().eval()
    ids = torch.randint(5, model.config.vocab_size, (BATCHES, ROWS, TOKENS), generator=g)
    labels = torch.where(torch.rand(ids.shape, generator=g) < 0.4, (ids * 3 + 1) % model.config.vocab_size, -100)
    labels[:, 0, 0] = 5

    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step in range(STEPS):
        batch = step % BATCHES
        loss = model(input_ids=ids[batch], labels=labels[batch]).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    saved = load_file(SOURCE / "model.safetensors").keys()
    weights = {name: p for name, p in model.state_dict().items() if name in saved}
    save_file({"input_ids": ids, "labels": labels}, OUT / "batches.safetensors")
    save_file({"losses": torch.tensor(losses), **weights}, OUT / "expected.safetensors")
    for file in OUT.iterdir():
        file.chmod(0o644)
    print(f"losses {losses[0]:.4f} to {losses[-1]:.4f}")


if __name__ == "__main__":
    main()
