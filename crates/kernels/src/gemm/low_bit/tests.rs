use super::*;
use crate::quant::{Range as GroupRange, decode_group, encode_group, fit_group, pack_codes};
use crate::testing::values;
use crate::{Activation, Epilogue, gemm_low_bit, reference};

/// A quantized matrix, and what it stands for.
struct Made {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<u8>,
    values: Vec<f32>,
    rows: usize,
}

fn made(book: CodeBook, size: usize, rows: usize, k: usize, seed: u64) -> Made {
    let w = values(rows * k, seed);
    let len = packed_len(book.bits(), k);
    let mut made = Made {
        codes: vec![0; rows * len],
        scales: Vec::new(),
        zeros: Vec::new(),
        values: vec![0.0; rows * k],
        rows,
    };
    for r in 0..rows {
        let mut codes = vec![0; k];
        let (row, out) = (&w[r * k..][..k], &mut made.values[r * k..][..k]);
        let pieces = row.chunks(size).zip(codes.chunks_mut(size));
        for ((x, codes), out) in pieces.zip(out.chunks_mut(size)) {
            let group = fit_group(book, x, GroupRange::MinMax, None);
            encode_group(book, x, group, codes);
            decode_group(book, codes, group, out);
            made.scales.push(group.scale);
            made.zeros.push(group.zero);
        }
        pack_codes(book.bits(), &codes, &mut made.codes[r * len..][..len]);
    }
    made
}

impl Made {
    fn source(&self, book: CodeBook) -> LowBitSource<'_> {
        LowBitSource {
            codes: &self.codes,
            scales: &self.scales,
            zeros: book.has_zero_points().then_some(&self.zeros),
            rows: self.rows,
        }
    }
}

#[test]
fn every_tier_multiplies_what_codes_stand_for() {
    let books = [
        CodeBook::Symmetric(4),
        CodeBook::Asymmetric(4),
        CodeBook::Symmetric(3),
        CodeBook::Asymmetric(3),
        CodeBook::Asymmetric(2),
        CodeBook::Nf4,
        CodeBook::Fp4,
        CodeBook::E2m1,
        CodeBook::Sign,
    ];
    for book in books {
        for (rows, n, k, size) in [
            (1, 1, 1, 64),
            (3, 17, 70, 32),
            (9, 50, 129, 64),
            (140, 40, 600, 128),
        ] {
            let x = values(rows * k, 1);
            let (bias, residual) = (values(n + 3, 2), values(rows * (n + 3), 3));
            let (first, second) = (made(book, size, n, k, 4), made(book, size, 3, k, 5));
            let w = [&first.values[..], &second.values].concat();
            let epilogue = Epilogue {
                bias: Some(&bias),
                activation: Activation::GeluErf,
                residual: Some(&residual),
            };
            let mut expected = vec![0.0; rows * (n + 3)];
            reference::gemm(rows, &x, &w, (n + 3, k), epilogue, &mut expected);
            for isa in Isa::available() {
                let run = |threads, format| {
                    let exec = Exec::with_isa(isa, threads);
                    let sources = [first.source(book), second.source(book)];
                    let sizes = (size, k);
                    let weights = LowBitWeights::pack_stacked(&exec, &sources, book, sizes, format);
                    let mut y = vec![f32::NAN; rows * (n + 3)];
                    gemm_low_bit(&exec, rows, &x, &weights, epilogue, &mut y);
                    y
                };
                for (format, most) in [(PackedFormat::F32, 2e-4), (PackedFormat::Bf16, 5e-2)] {
                    let one = run(1, format);
                    let again = run(3, format);
                    assert_eq!(one, again, "{isa} {book:?}: threads change nothing");
                    for (found, expected) in one.iter().zip(&expected) {
                        assert!(
                            (found - expected).abs() < most * (1.0 + expected.abs()),
                            "{isa} {book:?} {format:?} {rows} {n} {k}: {found} {expected}"
                        );
                    }
                }
            }
        }
    }
}
