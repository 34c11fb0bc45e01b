//! Attention on every instruction set against the scalar form.

use super::*;
use crate::testing;
use crate::{Exec, Isa, PackedFormat};

struct Case {
    qkv: Vec<f32>,
    cu_seqlens: Vec<u32>,
    shape: AttentionShape,
}

impl Case {
    fn new(lengths: &[usize], heads: usize, head_dim: usize, range: f32) -> Self {
        let mut cu_seqlens = vec![0];
        cu_seqlens.extend(lengths.iter().scan(0, |end, &length| {
            *end += length as u32;
            Some(*end)
        }));
        let tokens: usize = lengths.iter().sum();
        Self {
            qkv: testing::values(tokens * 3 * heads * head_dim, 5)
                .into_iter()
                .map(|value| value * range)
                .collect(),
            cu_seqlens,
            shape: AttentionShape {
                heads,
                head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
            },
        }
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn parts(&self) -> [Strided<'_>; 3] {
        std::array::from_fn(|i| Strided {
            data: self.qkv.get(i * self.width()..).unwrap_or(&[]),
            stride: 3 * self.width(),
        })
    }

    fn segments(&self) -> Segments<'_> {
        Segments {
            cu_seqlens: &self.cu_seqlens,
        }
    }

    fn inputs(&self) -> AttentionInputs<'_> {
        AttentionInputs::of_sequences(self.parts(), self.segments(), &Mask::Full, self.shape)
    }

    fn run(&self, isa: Isa, threads: usize) -> Vec<f32> {
        self.run_in(PackedFormat::F32Strict, isa, threads)
    }

    fn run_in(&self, precision: PackedFormat, isa: Isa, threads: usize) -> Vec<f32> {
        let exec = Exec::with_isa(isa, threads);
        let mut out = vec![f32::NAN; self.segments().tokens() * self.width()];
        attention(&exec, precision, self.inputs(), None, &mut out, None);
        out
    }

    fn expected(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.segments().tokens() * self.width()];
        reference::attention(self.inputs(), None, &mut out);
        out
    }
}

#[test]
fn ragged_lengths_and_odd_heads_agree_with_the_reference() {
    let lengths: [&[usize]; 6] = [
        &[],
        &[1],
        &[0, 3, 0, 1],
        &[7, 8, 9, 23, 24, 25],
        &[15, 1, 47, 48, 49],
        &[127, 129, 300],
    ];
    for lengths in lengths {
        for (heads, head_dim) in [
            (1, 1),
            (3, 7),
            (2, 12),
            (1, 16),
            (2, 32),
            (1, 40),
            (1, 64),
            (1, 80),
        ] {
            let case = Case::new(lengths, heads, head_dim, 2.0);
            let expected = case.expected();
            for isa in Isa::available() {
                for precision in [PackedFormat::F32Strict, PackedFormat::F32] {
                    // Values are up to 2, weights sum to 1; of halves scores up to 10 have an error of 10⁻⁵.
                    let halves = precision == PackedFormat::F32 && isa.multiplies_halves();
                    let most = if halves { 1e-4 } else { 2e-6 };
                    let found = case.run_in(precision, isa, 2);
                    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                        let at = format!("{lengths:?}, {heads} of {head_dim}, {isa}, value {i}");
                        assert!((a - b).abs() <= most, "{at}: {a} for {b} in {precision:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow_and_late_maxima_rescale() {
    // Scores of some ±10,000: a weight is 0 or 1, and the largest key may come in any block.
    let case = Case::new(&[400], 1, 8, 100.0);
    let expected = case.expected();
    for isa in Isa::available() {
        for (i, (a, b)) in case.run(isa, 1).iter().zip(&expected).enumerate() {
            // The score itself is rounded to one part in 2²⁴ of 10,000 or so.
            assert!((a - b).abs() <= 0.5, "{isa}, value {i}: {a} for {b}");
        }
    }
}

#[test]
fn the_same_bits_for_any_threads_and_any_company() {
    let lengths = [390, 5, 64, 1, 800];
    let case = Case::new(&lengths, 2, 20, 2.0);
    let width = case.width();
    for isa in Isa::available() {
        assert!(
            case.run_in(PackedFormat::F32, isa, 1) == case.run_in(PackedFormat::F32, isa, 3),
            "{isa}"
        );
        let together = case.run(isa, 1);
        for threads in [2, 3, 8] {
            assert!(
                case.run(isa, threads) == together,
                "{isa}, {threads} threads"
            );
        }
        for (i, range) in case.segments().ranges().enumerate() {
            let alone = Case {
                qkv: case.qkv[range.start * 3 * width..range.end * 3 * width].to_vec(),
                cu_seqlens: vec![0, range.len() as u32],
                shape: case.shape,
            };
            let expected = &together[range.start * width..range.end * width];
            assert!(alone.run(isa, 2) == expected, "{isa}, sequence {i}");
        }
    }
}

#[test]
fn a_nan_stays_in_its_sequence_and_is_not_hidden() {
    let mut case = Case::new(&[30, 30], 1, 16, 1.0);
    case.qkv[3 * 16 * 4] = f32::NAN; // a query of the first sequence
    case.qkv[3 * 16 * 40 + 16] = f32::NAN; // a key of the second
    for isa in Isa::available() {
        for precision in [PackedFormat::F32Strict, PackedFormat::F32] {
            let out = case.run_in(precision, isa, 2);
            for (t, row) in out.chunks_exact(16).enumerate() {
                let expect_nan = t == 4 || t >= 30;
                assert!(
                    row.iter().all(|x| x.is_nan() == expect_nan),
                    "{isa}, row {t}, {precision:?}"
                );
            }
        }
    }
}

#[test]
fn bf16_is_near_and_the_same_in_any_company() {
    for (lengths, heads, head_dim) in [
        (vec![1], 1, 1),
        (vec![2, 1, 7], 2, 12),
        (vec![5, 64, 145], 2, 32),
        (vec![289, 3], 1, 33),
        (vec![50], 3, 64),
    ] {
        let case = Case::new(&lengths, heads, head_dim, 1.5);
        let expected = case.expected();
        for isa in Isa::available() {
            let found = case.run_in(PackedFormat::Bf16, isa, 1);
            for (found, expected) in found.iter().zip(&expected) {
                // Operands and weights have 8 bits: a part of 2⁻⁸ of values up to 1.5, and of differences of scores.
                assert!(
                    (found - expected).abs() < 3e-2,
                    "{isa} {lengths:?}: {found} {expected}"
                );
            }
            assert!(
                found == case.run_in(PackedFormat::Bf16, isa, 3),
                "threads change nothing: {isa}"
            );
            if !isa.multiplies_bf16() {
                assert!(found == case.run(isa, 1), "the f32 kernel: {isa}");
            }
            // The last sequence alone.
            let tokens = lengths.last().copied().unwrap();
            let last = case.qkv.len() - tokens * 3 * case.width();
            let alone = Case {
                qkv: case.qkv[last..].to_vec(),
                cu_seqlens: vec![0, tokens as u32],
                shape: case.shape,
            };
            let alone = alone.run_in(PackedFormat::Bf16, isa, 1);
            assert!(alone == found[found.len() - alone.len()..], "alone: {isa}");
        }
    }
}
