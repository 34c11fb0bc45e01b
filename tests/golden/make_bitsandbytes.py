"""Writes tests/golden/bitsandbytes/expected.safetensors: what bitsandbytes makes of a matrix in nf4 and fp4.

    python tests/golden/make_bitsandbytes.py

`w` [12,192] f32 of widely different rows, zeros among them; for each format, in blocks of 64: `FORMAT.codes` [2304] u8, one code
a value; `FORMAT.scales` [36] f32; `FORMAT.values` [12,192] f32, what the codes stand for. For scales that are quantized
themselves (double quantization): `FORMAT.double.codes` [36] u8 of the dynamic 8-bit map, `FORMAT.double.offset` [1],
`FORMAT.double.scales` f32 [1], and `FORMAT.double.values`. `dynamic_map` [256] f32. Made with bitsandbytes 0.50.2 on the CPU.
"""

from pathlib import Path

import torch
from bitsandbytes.functional import create_dynamic_map, dequantize_4bit, quantize_4bit
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent / "bitsandbytes"


def nibbles(packed):
    packed = packed.flatten()
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten().contiguous()


def main():
    g = torch.Generator().manual_seed(5)
    w = torch.randn(12, 192, generator=g) * torch.logspace(-4, 2, 12)[:, None]
    w[3, 64:128] = 0.0
    w[5, 7] = 40.0 * w[5].abs().max()
    tensors = {"w": w, "dynamic_map": create_dynamic_map()}
    for name in ("nf4", "fp4"):
        packed, state = quantize_4bit(w, blocksize=64, quant_type=name)
        tensors[f"{name}.codes"] = nibbles(packed)
        tensors[f"{name}.scales"] = state.absmax.clone()
        tensors[f"{name}.values"] = dequantize_4bit(packed, state).clone()
        packed, state = quantize_4bit(w, blocksize=64, quant_type=name, compress_statistics=True)
        assert torch.equal(nibbles(packed), tensors[f"{name}.codes"])
        tensors[f"{name}.double.codes"] = state.absmax.clone()
        tensors[f"{name}.double.offset"] = state.offset.reshape(1).clone()
        tensors[f"{name}.double.scales"] = state.state2.absmax.clone()
        tensors[f"{name}.double.values"] = dequantize_4bit(packed, state).clone()
    OUT.mkdir(exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, OUT / "expected.safetensors")
    for name, tensor in tensors.items():
        print(name, tuple(tensor.shape), tensor.dtype)


if __name__ == "__main__":
    main()
