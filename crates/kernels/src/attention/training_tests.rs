//! Attention for training: what the forward pass keeps, dropout, and the gradients.

use super::*;
use crate::{Dropout, Exec, Float, Isa};

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

    fn run(&self, exec: &Exec) -> Found {
        let [q, k, v] = parts(&self.qkv, self.width());
        let segments = Segments {
            cu_seqlens: &self.cu_seqlens,
        };
        let dropout = self.dropout.map(|dropout| AttentionDropout {
            dropout,
            rows: Some(&self.names),
        });
        let tokens = segments.tokens();
        let mut found = Found {
            out: vec![f32::NAN; self.dout.len()],
            lse: vec![f32::NAN; tokens * self.shape.heads],
            dqkv: vec![f32::NAN; self.qkv.len()],
        };
        attention_keeping(
            exec,
            q,
            k,
            v,
            segments,
            Mask::Full,
            self.shape,
            dropout.as_ref(),
            &mut found.out,
            &mut found.lse,
        );
        let gradients = AttentionGradients {
            data: &mut found.dqkv,
            stride: 3 * self.width(),
            q: 0,
            k: self.width(),
            v: 2 * self.width(),
        };
        attention_backward(
            exec,
            q,
            k,
            v,
            segments,
            Mask::Full,
            self.shape,
            dropout.as_ref(),
            &found.out,
            &found.lse,
            &self.dout,
            gradients,
        );
        found
    }

    /// The reference's output and gradients, in the layout of `qkv`.
    fn expected<F: Float>(&self, qkv: &[F], dout: &[F]) -> (Vec<F>, Vec<F>) {
        let [q, k, v] = parts(qkv, self.width());
        let segments = Segments {
            cu_seqlens: &self.cu_seqlens,
        };
        let dropout = self.dropout.map(|dropout| AttentionDropout {
            dropout,
            rows: Some(&self.names),
        });
        let mut out = vec![F::default(); dout.len()];
        reference::attention_with_dropout(
            q,
            k,
            v,
            segments,
            Mask::Full,
            self.shape,
            dropout.as_ref(),
            &mut out,
        );
        let [dq, dk, dv] = reference::attention_backward(
            q,
            k,
            v,
            segments,
            Mask::Full,
            self.shape,
            dropout.as_ref(),
            dout,
        );
        let rows = dq
            .chunks_exact(self.width())
            .zip(dk.chunks_exact(self.width()))
            .zip(dv.chunks_exact(self.width()));
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
        let [q, k, v] = parts(&case.qkv, case.width());
        let segments = Segments {
            cu_seqlens: &case.cu_seqlens,
        };
        let mut out = vec![f32::NAN; case.dout.len()];
        attention(&exec, q, k, v, segments, Mask::Full, case.shape, &mut out);
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
    let [q, k, v] = parts(&case.qkv, 4);
    let segments = Segments {
        cu_seqlens: &case.cu_seqlens,
    };
    let mut data = vec![0.0; 36];
    let gradients = AttentionGradients {
        data: &mut data,
        stride: 12,
        q: 0,
        k: 3,
        v: 8,
    };
    let exec = Exec::with_isa(Isa::best(), 1);
    let (out, lse) = (&case.dout, [0.0; 3]);
    attention_backward(
        &exec,
        q,
        k,
        v,
        segments,
        Mask::Full,
        case.shape,
        None,
        out,
        &lse,
        &case.dout,
        gradients,
    );
}
