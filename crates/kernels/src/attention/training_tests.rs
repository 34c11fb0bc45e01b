//! Attention for training: what the forward pass keeps, dropout, and the gradients.

use super::*;
use crate::{Dropout, Exec, Float, Isa, PackedFormat};

fn values(len: usize, seed: usize, range: f32) -> Vec<f32> {
    let noise = |i: usize| ((i * 7 + seed * 13) as f32 * 12.9898).sin() * 43_758.547;
    (0..len)
        .map(|i| range * (2.0 * noise(i).fract() - 0.1))
        .collect()
}

fn parts<F>(qkv: &[F], width: usize) -> [Strided<'_, F>; 3] {
    std::array::from_fn(|i| Strided {
        data: qkv.get(i * width..).unwrap_or(&[]),
        stride: 3 * width,
    })
}

struct Case {
    qkv: Vec<f32>,
    dout: Vec<f32>,
    cu_seqlens: Vec<u32>,
    names: Vec<u32>,
    shape: AttentionShape,
    dropout: Option<Dropout>,
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    let squares = values.map(|value| f64::from(value) * f64::from(value));
    squares.sum::<f64>().sqrt()
}

/// What a forward and a backward pass give.
#[derive(PartialEq)]
struct Found {
    out: Vec<f32>,
    lse: Vec<f32>,
    dqkv: Vec<f32>,
}

impl Case {
    fn new(lengths: &[usize], heads: usize, head_dim: usize, probability: f32) -> Self {
        let mut cu_seqlens = vec![0];
        for length in lengths {
            cu_seqlens.push(cu_seqlens.last().unwrap() + *length as u32);
        }
        let (tokens, width) = (lengths.iter().sum::<usize>(), heads * head_dim);
        Self {
            qkv: values(tokens * 3 * width, 1, 1.0),
            dout: values(tokens * width, 2, 1.0),
            cu_seqlens,
            names: (0..tokens as u32).map(|t| t * 31 + 5).collect(),
            shape: AttentionShape {
                heads,
                head_dim,
                scale: (head_dim as f32).powf(-0.5),
            },
            dropout: (probability > 0.0).then_some(Dropout {
                probability,
                seed: 1,
                stream: 2,
                site: 3,
                step: 4,
            }),
        }
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn inputs<'a, F>(&'a self, qkv: &'a [F]) -> AttentionInputs<'a, F> {
        let segments = Segments {
            cu_seqlens: &self.cu_seqlens,
        };
        let parts = parts(qkv, self.width());
        AttentionInputs::of_sequences(parts, segments, &Mask::Full, self.shape)
    }

    fn run(&self, exec: &Exec) -> Found {
        self.run_in(PackedFormat::F32Strict, exec)
    }

    fn run_in(&self, precision: PackedFormat, exec: &Exec) -> Found {
        let inputs = self.inputs(&self.qkv);
        let dropout = self.dropout.map(|dropout| AttentionDropout {
            dropout,
            rows: Some(&self.names),
        });
        let tokens = inputs.keys.tokens();
        let mut found = Found {
            out: vec![f32::NAN; self.dout.len()],
            lse: vec![f32::NAN; tokens * self.shape.heads],
            dqkv: vec![f32::NAN; self.qkv.len()],
        };
        let (out, lse) = (&mut found.out, &mut found.lse);
        attention(exec, precision, inputs, dropout.as_ref(), out, Some(lse));
        let gradients = AttentionGradients {
            data: &mut found.dqkv,
            stride: 3 * self.width(),
            q: 0,
            k: self.width(),
            v: 2 * self.width(),
        };
        let kept = AttentionKept {
            out: &found.out,
            lse: &found.lse,
        };
        let (dropout, dout) = (dropout.as_ref(), &self.dout);
        attention_backward(exec, precision, inputs, dropout, kept, dout, gradients);
        found
    }

    /// The reference's output and gradients, in the layout of `qkv`.
    fn expected<F: Float>(&self, qkv: &[F], dout: &[F]) -> (Vec<F>, Vec<F>) {
        let inputs = self.inputs(qkv);
        let dropout = self.dropout.map(|dropout| AttentionDropout {
            dropout,
            rows: Some(&self.names),
        });
        let mut out = vec![F::default(); dout.len()];
        reference::attention(inputs, dropout.as_ref(), &mut out);
        let found = reference::attention_backward(inputs, dropout.as_ref(), dout);
        let rows = (found.q)
            .chunks_exact(self.width())
            .zip(found.k.chunks_exact(self.width()))
            .zip(found.v.chunks_exact(self.width()));
        let dqkv = rows.flat_map(|((q, k), v)| [q, k, v].concat()).collect();
        (out, dqkv)
    }
}

#[test]
fn outputs_and_gradients_agree_with_the_reference() {
    let cases: [(&[usize], usize, usize); 6] = [
        (&[], 1, 8),
        (&[1, 0, 2], 2, 3),
        (&[7, 8, 17, 49], 3, 7),
        (&[150, 1], 1, 20),
        (&[300], 1, 64),
        (&[145, 33], 2, 32),
    ];
    for (lengths, heads, head_dim) in cases {
        for probability in [0.0, 0.2] {
            let case = Case::new(lengths, heads, head_dim, probability);
            let (out, dqkv) = case.expected(&case.qkv, &case.dout);
            for isa in Isa::available() {
                let found = case.run(&Exec::with_isa(isa, 2));
                for (name, found, expected) in
                    [("out", &found.out, &out), ("dqkv", &found.dqkv, &dqkv)]
                {
                    let size = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
                        let what = format!(
                            "{name} {i} of {lengths:?}, {heads} × {head_dim}, p {probability}, {isa}"
                        );
                        assert!((a - b).abs() <= 1e-5 * size, "{what}: {a} for {b}");
                    }
                }
                // In bf16 each product's operands have 8 bits; errors of sums are judged by the whole.
                let narrow = case.run_in(PackedFormat::Bf16, &Exec::with_isa(isa, 2));
                assert!(
                    (narrow == found) != (isa.multiplies_bf16() && !out.is_empty()),
                    "bf16 runs where there is an instruction: {isa}"
                );
                for (name, narrow, expected) in
                    [("out", &narrow.out, &out), ("dqkv", &narrow.dqkv, &dqkv)]
                {
                    let size = norm(expected.iter().copied());
                    let error = norm(narrow.iter().zip(expected).map(|(a, b)| a - b));
                    let what = format!("{name} of {lengths:?}, {heads} × {head_dim}, {isa}");
                    assert!(error <= 1e-2 * size, "{what}: {error} of {size}");
                }
                let alone = case.run_in(PackedFormat::Bf16, &Exec::with_isa(isa, 1));
                assert!(narrow == alone, "threads change nothing: {isa}");
            }
        }
    }
}

#[test]
fn the_same_bits_for_any_threads_and_any_company() {
    let case = Case::new(&[160, 5, 64, 1, 200], 2, 20, 0.1);
    let width = case.width();
    for isa in Isa::available() {
        let together = case.run(&Exec::with_isa(isa, 1));
        for threads in [2, 3, 8] {
            assert!(
                case.run(&Exec::with_isa(isa, threads)) == together,
                "{isa}, {threads} threads"
            );
        }
        for ends in case.cu_seqlens.windows(2) {
            let rows = ends[0] as usize..ends[1] as usize;
            let alone = Case {
                qkv: case.qkv[rows.start * 3 * width..rows.end * 3 * width].to_vec(),
                dout: case.dout[rows.start * width..rows.end * width].to_vec(),
                cu_seqlens: vec![0, rows.len() as u32],
                names: case.names[rows.clone()].to_vec(),
                ..case
            };
            let found = alone.run(&Exec::with_isa(isa, 2));
            assert!(
                found.out == together.out[rows.start * width..rows.end * width],
                "{isa}"
            );
            assert!(
                found.dqkv == together.dqkv[rows.start * 3 * width..rows.end * 3 * width],
                "{isa}"
            );
        }
    }
}

#[test]
fn without_dropout_it_is_the_attention_of_inference() {
    let case = Case::new(&[100, 20], 2, 16, 0.0);
    for isa in Isa::available() {
        let exec = Exec::with_isa(isa, 2);
        let inputs = case.inputs(&case.qkv);
        let mut out = vec![f32::NAN; case.dout.len()];
        attention(&exec, PackedFormat::F32Strict, inputs, None, &mut out, None);
        assert!(case.run(&exec).out == out, "{isa}");
    }
}

#[test]
fn the_reference_is_what_differences_tell() {
    let case = Case::new(&[3, 4], 2, 3, 0.3);
    let qkv: Vec<f64> = case.qkv.iter().map(|&x| x.into()).collect();
    let dout: Vec<f64> = case.dout.iter().map(|&x| x.into()).collect();
    let (_, gradient) = case.expected(&qkv, &dout);
    let loss = |qkv: &[f64]| -> f64 {
        let (out, _) = case.expected(qkv, &dout);
        out.iter().zip(&dout).map(|(a, b)| a * b).sum()
    };
    for (i, found) in gradient.iter().enumerate() {
        let at = |h: f64| {
            let mut qkv = qkv.clone();
            qkv[i] += h;
            loss(&qkv)
        };
        let expected = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((found - expected).abs() < 1e-7, "{i}: {found}, {expected}");
    }
}

#[test]
#[should_panic(expected = "side by side")]
fn gradients_that_overlap_are_refused() {
    let case = Case::new(&[3], 1, 4, 0.0);
    let mut data = vec![0.0; 36];
    let gradients = AttentionGradients {
        data: &mut data,
        stride: 12,
        q: 0,
        k: 3,
        v: 8,
    };
    let exec = Exec::with_isa(Isa::best(), 1);
    let kept = AttentionKept {
        out: &case.dout,
        lse: &[0.0; 3],
    };
    let (precision, inputs) = (PackedFormat::F32Strict, case.inputs(&case.qkv));
    attention_backward(&exec, precision, inputs, None, kept, &case.dout, gradients);
}
