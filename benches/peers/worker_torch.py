"""PyTorch as a worker of the benchmark: transformers' `BertModel` in f32 or bf16, eager, SDPA attention."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch  # noqa: E402
import transformers  # noqa: E402

import protocol  # noqa: E402

transformers.utils.logging.disable_progress_bar()


def load(folder, attention="sdpa", dtype=torch.float32):
    return transformers.BertModel.from_pretrained(
        folder,
        add_pooling_layer=False,
        attn_implementation=attention,
        dtype=dtype,
    ).eval()


class Torch:
    def __init__(self, folder, threads, precision):
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        self.model = load(folder, dtype={"f32": torch.float32, "bf16": torch.bfloat16}[precision])

    def about(self):
        return {
            "engine": "torch",
            "version": torch.__version__,
            "threads": torch.get_num_threads(),
            "transformers": transformers.__version__,
            "mkl": torch.backends.mkl.is_available(),
            "isa": torch.backends.cpu.get_cpu_capability(),
        }

    def vocabulary(self):
        return self.model.config.vocab_size

    def prepare(self, sequences):
        """Padded ids, and the mask where there is padding."""
        ids, mask = map(torch.from_numpy, protocol.pad(sequences))
        return ids, None if mask.all() else mask

    def forward(self, batch):
        ids, mask = batch
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    def vectors(self, output):
        return output.float().numpy()


def main():
    arguments = protocol.parse_arguments(__doc__)
    with torch.inference_mode():
        protocol.serve(Torch(arguments.model, arguments.threads, arguments.precision), arguments.cases)


if __name__ == "__main__":
    main()
