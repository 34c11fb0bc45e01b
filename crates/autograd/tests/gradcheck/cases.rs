//! A case or more for each operation.

use std::sync::Arc;

use bertha_autograd::ops::{self, CrossEntropyOptions, EmbeddingInputs, Reduction, Tables};
use bertha_autograd::{LinearPart, LinearWeight, Parameter, Session, Var};
use bertha_kernels::{Activation, AttentionShape, BlockPlan, Mask, RotaryTable};
use bertha_tensor::{DType, Tensor};

use crate::check::Case;

pub fn all() -> Vec<Case> {
    let mut cases = vec![
        Case::new("add", &[&[2, 3], &[3]], |s, x| ops::add(s, &x[0], &x[1])),
        Case::new("sub", &[&[2, 1, 3], &[4, 1]], |s, x| {
            ops::sub(s, &x[0], &x[1])
        }),
        Case::new("mul", &[&[2, 3], &[2, 1]], |s, x| ops::mul(s, &x[0], &x[1])),
        // An input that comes twice: its gradients add up.
        Case::new("mul", &[&[4]], |s, x| ops::mul(s, &x[0], &x[0])),
        Case::new("div", &[&[2, 3], &[3]], |s, x| ops::div(s, &x[0], &x[1])).within(0.5, 2.0),
    ];
    cases.extend(transformer());
    cases.extend(losses());
    cases.extend(crate::general::all());
    cases
}

/// Attention of sequences of 5 and 3 tokens under a mask, weights dropped.
fn masked(mask: fn() -> Mask) -> Case {
    Case::new("attention", &[&[8, 12]], move |s, x| {
        let shape = AttentionShape {
            heads: 2,
            head_dim: 2,
            scale: 0.7,
        };
        ops::attention(
            &s.training(3, 1),
            &x[0],
            &[0, 5, 8],
            (mask(), None),
            shape,
            0.2,
        )
    })
}

fn transformer() -> Vec<Case> {
    let mut cases = vec![
        Case::new("layer_norm", &[&[3, 5], &[5], &[5]], |s, x| {
            ops::layer_norm(s, x[0].clone(), &x[1], &x[2], 1e-5)
        }),
        Case::new("attention", &[&[7, 12]], |s, x| {
            let shape = AttentionShape {
                heads: 2,
                head_dim: 2,
                scale: 0.7,
            };
            ops::attention(s, &x[0], &[0, 3, 4, 7], (Mask::Full, None), shape, 0.0)
        }),
        Case::new("attention", &[&[5, 12]], |s, x| {
            let shape = AttentionShape {
                heads: 1,
                head_dim: 4,
                scale: 0.5,
            };
            ops::attention(
                &s.training(3, 1),
                &x[0],
                &[0, 5],
                (Mask::Full, None),
                shape,
                0.3,
            )
        }),
        // Queries and keys that are turned as they are read.
        Case::new("attention", &[&[8, 12]], |s, x| {
            let shape = AttentionShape {
                heads: 2,
                head_dim: 2,
                scale: 0.7,
            };
            let table = Arc::new(RotaryTable::new(5, 2, 10.0));
            let mask = (Mask::Window { left: 3, right: 1 }, Some(&table));
            ops::attention(s, &x[0], &[0, 5, 8], mask, shape, 0.0)
        }),
        masked(|| Mask::Window { left: 2, right: 1 }),
        masked(|| Mask::Global {
            left: 1,
            right: 0,
            tokens: Arc::new([vec![0, 4], vec![1]]),
        }),
        masked(|| {
            // A block that is named twice, and one beyond a sequence's end.
            let plan = |rows: [&[u32]; 3]| {
                Arc::new(BlockPlan {
                    block: 2,
                    heads: vec![rows.map(<[u32]>::to_vec).to_vec()],
                })
            };
            Mask::Blocks(Arc::new([
                plan([&[0, 1, 2], &[1, 0, 0], &[2]]),
                plan([&[0, 2], &[0, 1], &[]]),
            ]))
        }),
        Case::new("dropout", &[&[4, 6]], |s, x| {
            ops::dropout(&s.training(7, 2), x[0].clone(), 0.4)
        }),
        Case::new("dropout_add", &[&[4, 6], &[4, 6]], |s, x| {
            ops::dropout_add(&s.training(7, 2), x[0].clone(), &x[1], 0.4)
        }),
        Case::new("embedding", &[&[4, 3]], |s, x| {
            ops::embedding(s, &x[0], &[2, 0, 2, 2])
        }),
        Case::new(
            "embedding_layer_norm",
            &[&[5, 3], &[4, 3], &[2, 3], &[3], &[3]],
            |s, x| {
                let tables = Tables {
                    word: &x[0],
                    position: Some(&x[1]),
                    token_type: Some(&x[2]),
                };
                let inputs = EmbeddingInputs {
                    ids: &[4, 1, 1, 0],
                    positions: &[0, 1, 2, 0],
                    type_ids: Some(&[0, 1, 1, 0]),
                };
                ops::embedding_layer_norm(s, tables, inputs, &x[3], &x[4], 1e-5)
            },
        ),
        // A bias by distance, cut at 2, under a window.
        Case::new("masked_attention", &[&[8, 12], &[2, 5]], |s, x| {
            let shape = AttentionShape {
                heads: 2,
                head_dim: 2,
                scale: 0.7,
            };
            let (qkv, bias) = (ops::Projections::Together(&x[0]), Some(&x[1]));
            let mask = Mask::Window { left: 3, right: 1 };
            ops::masked_attention(&s.training(3, 1), qkv, &[0, 5, 8], mask, bias, shape, 0.2)
        }),
        // Queries of the first and the last of three sequences.
        Case::new("masked_attention", &[&[3, 4], &[7, 8]], |s, x| {
            let shape = AttentionShape {
                heads: 2,
                head_dim: 2,
                scale: 0.7,
            };
            let crossed = ops::Projections::Crossed {
                queries: &x[0],
                cu_queries: &[0, 2, 2, 3],
                keys_values: &x[1],
            };
            ops::masked_attention(s, crossed, &[0, 3, 4, 7], Mask::Full, None, shape, 0.0)
        }),
        Case::new("replace_rows", &[&[4, 3], &[2, 3]], |s, x| {
            ops::replace_rows(s, x[0].clone(), &[3, 1], &x[1])
        }),
        // A part with dropout, one of whose inputs it takes twice; dropout before and after it goes on.
        Case::new("checkpoint", &[&[3, 4], &[3, 4]], |s, x| {
            let s = s.training(5, 1);
            let first = ops::dropout(&s, x[0].clone(), 0.3)?;
            let y = ops::checkpoint(&s, &[&first, &x[1]], |s, x| {
                let product = ops::mul(s, &x[0], &x[1])?;
                let product = ops::dropout(s, product, 0.3)?;
                ops::add(s, &product, &x[0])
            })?;
            ops::dropout(&s, y, 0.3)
        }),
        // The last columns stay.
        Case::new("rope", &[&[5, 14]], |s, x| {
            let table = Arc::new(RotaryTable::new(3, 6, 100.0));
            ops::rope(s, x[0].clone(), &[0, 3, 5], 2, &table)
        }),
        // Two numbers of several distances each, and one that no distance has.
        Case::new(
            "distance_scores",
            &[&[2, 3, 3], &[2, 3, 4], &[2, 3, 4]],
            |s, x| {
                let (queries, keys) = (Some(&x[1]), Some(&x[2]));
                ops::distance_scores(s, x[0].clone(), queries, keys, &[3, 3, 0, 1, 1], 0.7)
            },
        ),
        Case::new("distance_scores", &[&[1, 2, 2], &[1, 2, 3]], |s, x| {
            ops::distance_scores(s, x[0].clone(), None, Some(&x[1]), &[2, 1, 0], 1.5)
        }),
        Case::new("segment_mean", &[&[6, 3]], |s, x| {
            ops::segment_mean(s, &x[0], &[0, 1, 4, 6])
        }),
        Case::new("custom_gradient", &[&[4, 3]], |s, x| {
            // A cube, by the rule of a square times three.
            let square = ops::mul(s, &x[0], &x[0])?.detach();
            let value = ops::mul(s, &square, &x[0].detach())?.tensor().clone();
            ops::custom_gradient(s, &x[0], value, move |session, dy| {
                let thrice = ops::mul_scalar(session, &square, 3.0)?;
                let dx = ops::mul(session, &thrice, &Var::constant(dy))?;
                Ok(dx.tensor().clone())
            })
        }),
        // The gradient is the surrogate's: here the value is the surrogate's too, so that differences show it.
        Case::new("straight_through", &[&[4, 3]], |s, x| {
            let surrogate = ops::tanh(s, &x[0])?;
            let value = surrogate.tensor().copy();
            ops::straight_through(s, &surrogate, value)
        }),
        Case::new("gather_rows", &[&[4, 3]], |s, x| {
            ops::gather_rows(s, &x[0], &[3, 1, 3])
        }),
        Case::new("column", &[&[4, 3]], |s, x| ops::column(s, &x[0], 1)),
        Case::new("softmax", &[&[3, 4]], |s, x| ops::softmax(s, x[0].clone())),
    ];
    for activation in [
        Activation::None,
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
    ] {
        cases.push(Case::new("activate", &[&[3, 4]], move |s, x| {
            ops::activate(s, activation, x[0].clone())
        }));
        cases.push(Case::new("gate", &[&[3, 8]], move |s, x| {
            ops::gate(s, activation, &x[0])
        }));
        cases.push(Case::new("linear", &[&[4, 3], &[4, 5]], move |s, x| {
            ops::linear(
                s,
                &x[0],
                &constant_weight(x[0].dtype()),
                activation,
                Some(&x[1]),
            )
        }));
    }
    // Away from the corner of ReLU.
    cases.push(
        Case::new("activate", &[&[3, 4]], |s, x| {
            ops::activate(s, Activation::Relu, x[0].clone())
        })
        .within(0.1, 1.0),
    );
    // Parameters of a linear layer of two parts are inputs by name.
    cases.push(Case::with_parameters(
        "linear",
        &[&[4, 3], &[2, 3], &[2], &[3, 3], &[3]],
        |s, x| {
            let part = |weight: usize| LinearPart {
                weight: x[weight].clone(),
                bias: Some(x[weight + 1].clone()),
            };
            let weight = LinearWeight::trained(vec![part(1), part(3)])?;
            ops::linear(s, &x[0].var(), &weight, Activation::GeluErf, None)
        },
    ));
    cases
}

/// `[5, 3]` and its bias.
fn constant_weight(dtype: DType) -> LinearWeight {
    let values = |len: usize| {
        (0..len)
            .map(|i| (i as f32 * 0.7).sin())
            .collect::<Vec<f32>>()
    };
    let parameter = |shape: &[usize]| {
        let value = Tensor::from_vec(values(shape.iter().product()), shape).unwrap();
        Parameter::frozen("w", value.to_dtype(dtype).unwrap())
    };
    let part = LinearPart {
        weight: parameter(&[5, 3]),
        bias: Some(parameter(&[5])),
    };
    LinearWeight::trained(vec![part]).unwrap()
}

fn losses() -> Vec<Case> {
    let labels = [2_i64, -100, 0, 1];
    let cross_entropy = move |options: CrossEntropyOptions| {
        move |s: &Session, x: &[Var]| ops::cross_entropy(s, x[0].clone(), &labels, &options)
    };
    let targets = [0.0_f32, 1.0, 0.3, 0.9, 1.0, 0.0];
    vec![
        Case::new(
            "cross_entropy",
            &[&[4, 3]],
            cross_entropy(CrossEntropyOptions::default()),
        ),
        Case::new(
            "cross_entropy",
            &[&[4, 3]],
            cross_entropy(CrossEntropyOptions {
                label_smoothing: 0.2,
                class_weights: Some(vec![0.5, 1.0, 2.0]),
                reduction: Reduction::SumOver(7.0),
            }),
        ),
        Case::new("binary_cross_entropy", &[&[2, 3]], move |s, x| {
            ops::binary_cross_entropy(s, x[0].clone(), &targets, Reduction::Mean)
        }),
        Case::new("mean_squared_error", &[&[6]], move |s, x| {
            ops::mean_squared_error(s, x[0].clone(), &targets, Reduction::Mean)
        }),
    ]
}
