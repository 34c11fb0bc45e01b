//! Every mask and the bias against dense attention under an additive bias, written out.

use std::sync::Arc;

use super::*;
use crate::{Dropout, Exec, Isa, PackedFormat, RotaryTable, rope};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| self.below(2001) as f32 / 500.0 - 2.0)
            .collect()
    }
}

/// How often a query sees a key, by the definition of each mask.
fn multiplicity(mask: &Mask, sequence: usize, head: usize, query: usize, key: usize) -> usize {
    let near =
        |left: usize, right: usize| key + left >= query && key <= query.saturating_add(right);
    match mask {
        Mask::Full => 1,
        Mask::Window { left, right } => near(*left, *right).into(),
        Mask::Global {
            left,
            right,
            tokens,
        } => (near(*left, *right) || tokens[sequence].contains(&(key as u32))).into(),
        Mask::Blocks(plans) => {
            let plan = &plans[sequence];
            let heads = &plan.heads[if plan.heads.len() == 1 { 0 } else { head }];
            let blocks = heads[query / plan.block].iter();
            blocks
                .filter(|&&block| block as usize == key / plan.block)
                .count()
        }
    }
}

/// Dense attention whose scores get `ln(multiplicity)`.
fn dense(inputs: &AttentionInputs<'_>) -> Vec<f64> {
    let AttentionShape {
        heads,
        head_dim,
        scale,
    } = inputs.shape;
    let width = heads * head_dim;
    let mut out = vec![0.0; inputs.queries.tokens() * width];
    for (sequence, rows) in inputs.queries.ranges().enumerate() {
        for head in 0..heads {
            for i in 0..rows.len() {
                let at = |of: Strided<'_>, t: usize, d: usize| {
                    f64::from(of.data[(rows.start + t) * of.stride + head * head_dim + d])
                };
                let scores: Vec<f64> = (0..rows.len())
                    .map(|j| {
                        let product: f64 = (0..head_dim)
                            .map(|d| at(inputs.q, i, d) * at(inputs.k, j, d))
                            .sum();
                        let bias = inputs.bias.map_or(0.0, |bias| {
                            let reach = bias.reach as i64;
                            let far = (j as i64 - i as i64).clamp(-reach, reach) + reach;
                            bias.values[head * (2 * bias.reach + 1) + far as usize].into()
                        });
                        let times = multiplicity(inputs.mask, sequence, head, i, j);
                        product * f64::from(scale) + bias + (times as f64).ln()
                    })
                    .collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if max == f64::NEG_INFINITY {
                    continue;
                }
                let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                for d in 0..head_dim {
                    let mixed: f64 = (scores.iter().enumerate())
                        .map(|(j, score)| (score - max).exp() * at(inputs.v, j, d))
                        .sum();
                    out[(rows.start + i) * width + head * head_dim + d] = mixed / sum;
                }
            }
        }
    }
    out
}

fn masks(random: &mut Random, lengths: &[usize], heads: usize) -> [Mask; 5] {
    // Wider than a block of keys where a sequence is.
    let most = if lengths.contains(&420) { 200 } else { 70 };
    let (left, right) = (random.below(most), random.below(most));
    let tokens = lengths
        .iter()
        .map(|&len| (0..len as u32).filter(|_| random.below(9) == 0).collect())
        .collect();
    let plans = lengths
        .iter()
        .map(|&len| {
            let block = match len {
                // Longer than a block of the kernel's.
                420 => 150,
                _ => 1 + random.below(40),
            };
            let blocks = len.div_ceil(block);
            let heads = [1, heads][random.below(2)];
            let mut row = |_| -> Vec<u32> {
                let count = 1 + random.below(6);
                // Blocks may be named twice, and lie beyond the end.
                (0..count)
                    .map(|_| random.below(blocks + 1) as u32)
                    .collect()
            };
            let heads = (0..heads)
                .map(|_| (0..blocks).map(&mut row).collect())
                .collect();
            Arc::new(BlockPlan { block, heads })
        })
        .collect();
    [
        Mask::Full,
        Mask::Window { left, right },
        Mask::Window {
            left: 0,
            right: usize::MAX,
        },
        Mask::Global {
            left,
            right,
            tokens,
        },
        Mask::Blocks(plans),
    ]
}

/// Calls with inputs of every mask, with a bias and without, over ragged sequences.
fn each_case(mut with: impl FnMut(AttentionInputs<'_>, &str, &mut Random)) {
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for (lengths, heads, head_dim) in [
        (&[1, 0, 5][..], 2, 3),
        (&[33, 200], 1, 16),
        (&[170, 7], 2, 9),
        (&[420], 1, 8),
        (&[64, 65, 1, 63], 2, 20),
        (&[150], 1, 64),
    ] {
        let mut cu_seqlens = vec![0];
        for &len in lengths {
            cu_seqlens.push(cu_seqlens.last().unwrap() + len as u32);
        }
        let segments = Segments {
            cu_seqlens: &cu_seqlens,
        };
        let (tokens, width) = (segments.tokens(), heads * head_dim);
        let qkv = random.values(tokens * 3 * width);
        let [q, k, v] = [0, 1, 2].map(|i| Strided {
            data: &qkv[i * width..],
            stride: 3 * width,
        });
        // Beyond the sequence's ends, or not.
        let reach = random.below(30) + if head_dim == 64 { 200 } else { 0 };
        let bias = random.values(heads * (2 * reach + 1));
        for mask in &masks(&mut random, lengths, heads) {
            for bias in [
                None,
                Some(RelativeBias {
                    values: &bias,
                    reach,
                }),
            ] {
                let shape = AttentionShape {
                    heads,
                    head_dim,
                    scale: 0.4,
                };
                let inputs = AttentionInputs {
                    q,
                    k,
                    v,
                    queries: segments,
                    keys: segments,
                    mask,
                    bias,
                    rotary: None,
                    shape,
                };
                let name = format!("{lengths:?}, {mask:?}, a bias: {}", bias.is_some());
                with(inputs, &name, &mut random);
            }
        }
    }
}

#[test]
fn every_mask_equals_dense_attention_under_an_additive_bias() {
    each_case(|inputs, name, _| {
        let expected = dense(&inputs);
        let mut plain = vec![0.0; expected.len()];
        reference::attention(inputs, None, &mut plain);
        let compare = |found: &[f32], by: &str| {
            for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
                let wrong = (f64::from(*a) - b).abs() > 1e-5 || a.is_nan();
                assert!(!wrong, "{by}, {name}, value {i}: {a} for {b}");
            }
        };
        compare(&plain, "reference");
        for isa in Isa::available() {
            let run = |precision, threads| {
                let mut out = vec![f32::NAN; expected.len()];
                let exec = Exec::with_isa(isa, threads);
                attention(&exec, precision, inputs, None, &mut out, None);
                out
            };
            let found = run(PackedFormat::F32Strict, 1);
            compare(&found, isa.name());
            assert!(
                found == run(PackedFormat::F32Strict, 3),
                "{isa}: bits depend on threads"
            );
            // Scores of up to 30 from operands of 8 bits, and values up to 2.
            let narrow = run(PackedFormat::Bf16, 1);
            for (i, (a, b)) in narrow.iter().zip(&expected).enumerate() {
                let wrong = (f64::from(*a) - b).abs() > 0.15 || a.is_nan();
                assert!(!wrong, "bf16 on {isa}, {name}, value {i}: {a} for {b}");
            }
            assert!(
                narrow == run(PackedFormat::Bf16, 3),
                "{isa}: bits of bf16 depend on threads"
            );
        }
    });
}

/// Compares gradients with the reference's, on every instruction set and for any number of threads.
fn compare_gradients(
    inputs: AttentionInputs<'_>,
    dropout: Option<&AttentionDropout<'_>>,
    name: &str,
    random: &mut Random,
) {
    let len = inputs.queries.tokens() * inputs.shape.heads * inputs.shape.head_dim;
    let dout = random.values(len);
    let expected = reference::attention_backward(inputs, dropout, &dout);
    let expected = [expected.q, expected.k, expected.v, expected.bias];
    for isa in Isa::available() {
        let run = |precision, threads| {
            let exec = Exec::with_isa(isa, threads);
            let (mut out, mut lse) = (
                vec![f32::NAN; len],
                vec![f32::NAN; inputs.queries.tokens() * inputs.shape.heads],
            );
            let (to, sums) = (&mut out, Some(&mut lse[..]));
            attention(&exec, precision, inputs, dropout, to, sums);
            let kept = AttentionKept {
                out: &out,
                lse: &lse,
            };
            let found = masked_attention_backward(&exec, precision, inputs, dropout, kept, &dout);
            [found.q, found.k, found.v, found.bias]
        };
        let found = run(PackedFormat::F32Strict, 1);
        for (what, (found, expected)) in ["dq", "dk", "dv", "dbias"]
            .iter()
            .zip(found.iter().zip(&expected))
        {
            assert_eq!(found.len(), expected.len(), "{isa}, {name}: {what}");
            let scale = expected.iter().fold(1.0f32, |m, x| m.max(x.abs()));
            for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                let close = (a - b).abs() <= 2e-5 * scale;
                assert!(close, "{isa}, {name}: {what}[{i}] is {a} for {b}");
            }
        }
        assert!(
            found == run(PackedFormat::F32Strict, 3),
            "{isa}: bits depend on threads"
        );
        let narrow = run(PackedFormat::Bf16, 1);
        for (what, (found, expected)) in ["dq", "dk", "dv", "dbias"]
            .iter()
            .zip(narrow.iter().zip(&expected))
        {
            // Operands have 8 bits: errors of sums are judged by the whole.
            let norm = |of: &mut dyn Iterator<Item = f32>| {
                of.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
            let size = norm(&mut expected.iter().copied());
            let close = error <= 2e-2 * size + 1e-3;
            assert!(
                close,
                "bf16 on {isa}, {name}: {what} is {error} of {size} wrong"
            );
        }
        assert!(
            narrow == run(PackedFormat::Bf16, 3),
            "{isa}: bits of bf16 depend on threads"
        );
    }
}

#[test]
fn gradients_under_every_mask_agree_with_the_reference() {
    let dropout = AttentionDropout {
        dropout: Dropout {
            probability: 0.2,
            seed: 5,
            stream: 1,
            site: 2,
            step: 3,
        },
        rows: None,
    };
    each_case(|inputs, name, random| {
        compare_gradients(inputs, None, name, random);
        compare_gradients(inputs, Some(&dropout), name, random);
    });
}

#[test]
fn turned_as_they_are_read_is_turned_before() {
    let precisions = [
        PackedFormat::F32Strict,
        PackedFormat::F32,
        PackedFormat::Bf16,
    ];
    each_case(|inputs, name, random| {
        let AttentionShape {
            heads, head_dim, ..
        } = inputs.shape;
        if !head_dim.is_multiple_of(2) {
            return;
        }
        let (width, tokens) = (heads * head_dim, inputs.keys.tokens());
        let table = RotaryTable::new(420, head_dim, 100.0);
        let turning = AttentionInputs {
            rotary: Some(&table),
            ..inputs
        };
        compare_gradients(turning, None, name, random);
        for isa in Isa::available() {
            let exec = Exec::with_isa(isa, 2);
            let mut qkv = inputs.q.data.to_vec();
            rope(
                &exec,
                &mut qkv,
                3 * width,
                inputs.keys,
                2 * heads,
                &table,
                false,
            );
            let [q, k, v] = [0, 1, 2].map(|i| Strided {
                data: &qkv[i * width..],
                stride: 3 * width,
            });
            let before = AttentionInputs { q, k, v, ..inputs };
            for precision in precisions {
                let run = |inputs| {
                    let mut out = vec![f32::NAN; tokens * width];
                    attention(&exec, precision, inputs, None, &mut out, None);
                    out
                };
                assert!(run(turning) == run(before), "{isa}, {name}, {precision:?}");
            }
        }
    });
}

#[test]
fn queries_of_their_own_see_all_keys() {
    let mut random = Random(77);
    let (shape, keys) = (
        AttentionShape {
            heads: 2,
            head_dim: 5,
            scale: 0.4,
        },
        [0, 30, 30, 190],
    );
    let queries = [0, 2, 2, 5];
    let (q, kv) = (random.values(5 * 10), random.values(190 * 20));
    let inputs = AttentionInputs {
        q: Strided {
            data: &q,
            stride: 10,
        },
        k: Strided {
            data: &kv,
            stride: 20,
        },
        v: Strided {
            data: &kv[10..],
            stride: 20,
        },
        queries: Segments {
            cu_seqlens: &queries,
        },
        keys: Segments { cu_seqlens: &keys },
        mask: &Mask::Full,
        bias: None,
        rotary: None,
        shape,
    };
    let (mut expected, mut found) = (vec![0.0; 50], vec![0.0; 50]);
    reference::attention(inputs, None, &mut expected);
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        attention(&exec, PackedFormat::F32, inputs, None, &mut found, None);
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 1e-5, "{isa}: {a} for {b}");
        }
    }
    compare_gradients(inputs, None, "queries of their own", &mut random);
}
