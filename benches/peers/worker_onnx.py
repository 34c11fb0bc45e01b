"""ONNX Runtime as a worker of the benchmark: transformers' `BertModel` exported by PyTorch, in f32 or int8.

int8 is the runtime's own dynamic quantization: weights of products by column, inputs as they come.

The exporter's graph is optimized by the runtime as far as it goes (all levels, the default). Eager
attention is exported: its graph is shorter than that of SDPA, and the runtime fuses more of it.
"""

import json
import logging
import os
import warnings
from pathlib import Path

import onnxruntime

import protocol

OUTPUT = "last_hidden_state"


class Onnx:
    def __init__(self, folder, threads, precision):
        config = json.loads((folder / "config.json").read_text())
        self.vocab_size = config["vocab_size"]
        self.threads = threads
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            quantized(folder) if precision == "int8" else export(folder), options, providers=["CPUExecutionProvider"]
        )

    def about(self):
        return {
            "engine": "onnxruntime",
            "version": onnxruntime.__version__,
            "threads": self.threads,
        }

    def vocabulary(self):
        return self.vocab_size

    def prepare(self, sequences):
        ids, mask = protocol.pad(sequences)
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, batch):
        return self.session.run([OUTPUT], batch)[0]

    def vectors(self, output):
        return output


def export(folder):
    """The path of the graph, exported unless it is there and newer than the weights."""
    path = folder / "model.onnx"
    weights = folder / "model.safetensors"
    if path.is_file() and path.stat().st_mtime > weights.stat().st_mtime:
        return path

    import torch

    import worker_torch

    class LastHiddenState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = worker_torch.load(folder, attention="eager")

        def forward(self, input_ids, attention_mask):
            return self.bert(input_ids=input_ids, attention_mask=attention_mask)[OUTPUT]

    # What the exporter says on its way would bury the progress of the run.
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    # Two tensors: of one tensor given twice the exporter makes one input.
    ids = torch.ones(2, 16, dtype=torch.long)
    mask = torch.ones_like(ids)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    graph = torch.onnx.export(
        LastHiddenState().eval(),
        (ids, mask),
        input_names=["input_ids", "attention_mask"],
        output_names=[OUTPUT],
        dynamic_shapes=(free, free),
        dynamo=True,
        verbose=False,
    )
    # Under its own name last: a graph that is there is whole.
    unfinished = folder / "unfinished.onnx"
    graph.save(unfinished)
    os.replace(unfinished, path)
    return path


def quantized(folder):
    """The path of the graph in int8, made unless it is there and newer than the other."""
    source, path = export(folder), folder / "model.int8.onnx"
    if path.is_file() and path.stat().st_mtime > source.stat().st_mtime:
        return path

    from onnxruntime.quantization import QuantType, quantize_dynamic

    unfinished = folder / "unfinished.onnx"
    quantize_dynamic(
        source,
        unfinished,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )
    os.replace(unfinished, path)
    return path


def main():
    arguments = protocol.parse_arguments(__doc__)
    protocol.serve(
        Onnx(Path(arguments.model), arguments.threads, arguments.precision), arguments.cases
    )


if __name__ == "__main__":
    main()
