"""OpenVINO as a worker of the benchmark: transformers' `BertModel` exported to ONNX by PyTorch, with dynamic shapes,
one stream and the hint for latency, in f32, bf16 or int8.

int8 is NNCF's quantization after training for transformers, calibrated on random sequences: for its speed.
"""

import contextlib
import json
import sys
from pathlib import Path

import openvino

import protocol
import worker_onnx

CALIBRATION = [16, 128, 64, 32, 100, 48, 128, 24, 80, 128, 56, 112]


class OpenVino:
    def __init__(self, folder, threads, precision):
        self.vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
        self.threads = threads
        self.precision = precision
        core = openvino.Core()
        model = core.read_model(worker_onnx.export(folder))
        if precision == "int8":
            model = core.read_model(self.quantized(folder, model))
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def quantized(self, folder, model):
        """The path of the model in int8, made unless it is there."""
        path = folder / "openvino.int8.xml"
        if path.is_file():
            return path

        # It tells of itself on standard output, where answers go.
        with contextlib.redirect_stdout(sys.stderr):
            import nncf

            sequences = protocol.make_sequences(CALIBRATION, self.vocab_size)
            batches = [self.prepare([sequence]) for sequence in sequences]
            model = nncf.quantize(
                model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER
            )
        openvino.save_model(model, path, compress_to_fp16=False)
        return path

    def about(self):
        return {
            "engine": "openvino",
            "version": openvino.__version__,
            "threads": self.threads,
            "precision": self.precision,
        }

    def vocabulary(self):
        return self.vocab_size

    def prepare(self, sequences):
        ids, mask = protocol.pad(sequences)
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, batch):
        return self.request.infer(batch, share_inputs=True)[0]

    def vectors(self, output):
        return output


def main():
    arguments = protocol.parse_arguments(__doc__)
    engine = OpenVino(Path(arguments.model), arguments.threads, arguments.precision)
    protocol.serve(engine, arguments.cases)


if __name__ == "__main__":
    main()
