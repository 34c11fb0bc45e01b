//! Cases of the general set.

use bertha_autograd::ops::{self, Conv2d, Pool2d};
use bertha_tensor::Tensor;

use crate::check::Case;

pub fn all() -> Vec<Case> {
    [
        extrema(),
        functions(),
        reductions(),
        products(),
        views(),
        selections(),
        images(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn indices(values: &[i64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

fn extrema() -> Vec<Case> {
    vec![
        Case::new("maximum", &[&[3, 4], &[4]], |s, x| {
            ops::maximum(s, &x[0], &x[1])
        }),
        Case::new("minimum", &[&[3, 1], &[2, 1, 4]], |s, x| {
            ops::minimum(s, &x[0], &x[1])
        }),
        // Equal values share the gradient.
        Case::new("maximum", &[&[4]], |s, x| ops::maximum(s, &x[0], &x[0])),
        Case::new("minimum", &[&[4]], |s, x| ops::minimum(s, &x[0], &x[0])),
    ]
}

fn functions() -> Vec<Case> {
    let shape: &[&[usize]] = &[&[3, 5]];
    vec![
        Case::new("neg", shape, |s, x| ops::neg(s, &x[0])),
        Case::new("add_scalar", shape, |s, x| ops::add_scalar(s, &x[0], 0.7)),
        Case::new("mul_scalar", shape, |s, x| ops::mul_scalar(s, &x[0], -1.7)),
        Case::new("exp", shape, |s, x| ops::exp(s, &x[0])),
        Case::new("ln", shape, |s, x| ops::ln(s, &x[0])).within(0.3, 3.0),
        Case::new("sqrt", shape, |s, x| ops::sqrt(s, &x[0])).within(0.3, 3.0),
        Case::new("powf", shape, |s, x| ops::powf(s, &x[0], -1.3)).within(0.4, 2.0),
        Case::new("powf", shape, |s, x| ops::powf(s, &x[0], 3.0)),
        Case::new("powf", shape, |s, x| ops::powf(s, &x[0], 0.0)),
        Case::new("abs", shape, |s, x| ops::abs(s, &x[0])),
        Case::new("clamp", shape, |s, x| ops::clamp(s, &x[0], -0.5, 0.8)),
        // On a view, whose values do not lie in order.
        Case::new("exp", shape, |s, x| {
            ops::exp(s, &ops::transpose(s, &x[0], 0, 1)?)
        }),
    ]
}

fn reductions() -> Vec<Case> {
    let shape: &[&[usize]] = &[&[3, 2, 4]];
    vec![
        Case::new("sum", shape, |s, x| ops::sum(s, &x[0], &[0, 2], false)),
        Case::new("sum", shape, |s, x| ops::sum(s, &x[0], &[], false)),
        Case::new("sum", shape, |s, x| ops::sum_all(s, &x[0])),
        Case::new("mean", shape, |s, x| ops::mean(s, &x[0], &[1], true)),
        Case::new("mean", shape, |s, x| ops::mean_all(s, &x[0])),
        Case::new("var", shape, |s, x| ops::var(s, &x[0], &[0, 2], 1, false)),
        Case::new("var", shape, |s, x| ops::var(s, &x[0], &[1], 0, true)),
        Case::new("max", shape, |s, x| ops::max(s, &x[0], &[0, 2], false)),
        Case::new("max", shape, |s, x| ops::max(s, &x[0], &[1], true)),
        Case::new("logsumexp", shape, |s, x| {
            ops::logsumexp(s, &x[0], &[2, 0], false)
        }),
        Case::new("logsumexp", shape, |s, x| {
            ops::logsumexp(s, &x[0], &[1], true)
        }),
        Case::new("log_softmax", shape, |s, x| ops::log_softmax(s, &x[0])),
    ]
}

fn products() -> Vec<Case> {
    let product =
        |shapes: &[&[usize]]| Case::new("matmul", shapes, |s, x| ops::matmul(s, &x[0], &x[1]));
    vec![
        product(&[&[3, 4], &[4, 2]]),
        product(&[&[2, 3, 4], &[2, 4, 5]]),
        // One matrix for a batch.
        product(&[&[2, 3, 3, 4], &[4, 2]]),
        product(&[&[3, 4], &[2, 4, 2]]),
        // Batches that broadcast both ways.
        product(&[&[2, 1, 3, 2], &[4, 2, 3]]),
        // Vectors.
        product(&[&[4], &[4, 3]]),
        product(&[&[2, 3, 4], &[4]]),
        product(&[&[4], &[4]]),
        product(&[&[3], &[2, 3, 2]]),
        Case::new("matmul", &[&[4, 3], &[2, 5, 4]], |s, x| {
            let a = ops::transpose(s, &x[0], 0, 1)?;
            ops::matmul(s, &a, &ops::transpose(s, &x[1], 1, 2)?)
        }),
        // A gradient that arrives as a view.
        Case::new("matmul", &[&[2, 3, 4], &[2, 4, 5]], |s, x| {
            ops::permute(s, &ops::matmul(s, &x[0], &x[1])?, &[2, 0, 1])
        }),
    ]
}

fn views() -> Vec<Case> {
    let shape: &[&[usize]] = &[&[3, 1, 4]];
    vec![
        Case::new("reshape", shape, |s, x| ops::reshape(s, &x[0], &[2, 6])),
        Case::new("permute", shape, |s, x| ops::permute(s, &x[0], &[2, 0, 1])),
        Case::new("transpose", shape, |s, x| ops::transpose(s, &x[0], 0, 2)),
        Case::new("squeeze", shape, |s, x| ops::squeeze(s, &x[0], 1)),
        Case::new("unsqueeze", shape, |s, x| ops::unsqueeze(s, &x[0], 3)),
        Case::new("broadcast_to", shape, |s, x| {
            ops::broadcast_to(s, &x[0], &[2, 3, 5, 4])
        }),
        Case::new("narrow", shape, |s, x| ops::narrow(s, &x[0], 2, 1, 2)),
        Case::new("narrow", shape, |s, x| ops::narrow(s, &x[0], 0, 2, 1)),
        Case::new("select", shape, |s, x| ops::select(s, &x[0], 0, 1)),
        Case::new("select", shape, |s, x| ops::select(s, &x[0], 2, 3)),
        Case::new("concat", &[&[2, 3], &[2, 1], &[2, 2]], |s, x| {
            ops::concat(s, &[&x[0], &x[1], &x[2], &x[0]], 1)
        }),
        Case::new("stack", &[&[2, 3], &[2, 3]], |s, x| {
            ops::stack(s, &[&x[0], &x[1]], 1)
        }),
        Case::new("split", &[&[2, 6, 2]], |s, x| {
            let parts = ops::split(s, &x[0], 1, &[2, 1, 3])?;
            ops::concat(s, &[&parts[2], &parts[0], &parts[1], &parts[0]], 1)
        }),
        // Parts that nothing flows into.
        Case::new("split", &[&[4, 2]], |s, x| {
            Ok(ops::split(s, &x[0], 0, &[1, 2, 1])?.swap_remove(1))
        }),
    ]
}

fn selections() -> Vec<Case> {
    vec![
        Case::new("index_select", &[&[4, 3]], |s, x| {
            ops::index_select(s, &x[0], 0, &indices(&[2, 0, 2, 2], &[4]))
        }),
        Case::new("index_select", &[&[2, 3, 2]], |s, x| {
            ops::index_select(s, &x[0], 1, &indices(&[1, 1], &[2]))
        }),
        Case::new("gather", &[&[3, 4]], |s, x| {
            ops::gather(s, &x[0], 1, &indices(&[0, 3, 3, 1, 1, 1], &[2, 3]))
        }),
        Case::new("gather", &[&[3, 4, 2]], |s, x| {
            ops::gather(s, &x[0], 0, &indices(&[0, 2, 2, 1, 0, 0], &[3, 2, 1]))
        }),
        Case::new("scatter_add", &[&[3, 4], &[2, 3]], |s, x| {
            let index = indices(&[0, 3, 3, 1, 1, 1], &[2, 3]);
            ops::scatter_add(s, &x[0], 1, &index, &x[1])
        }),
        Case::new("where_", &[&[3], &[2, 1]], |s, x| {
            let condition = vec![true, false, true, false, false, true];
            let condition = Tensor::from_vec(condition, &[2, 3]).unwrap();
            ops::where_(s, &condition, &x[0], &x[1])
        }),
    ]
}

fn images() -> Vec<Case> {
    let convolution = |shapes: &[&[usize]], options: Conv2d| {
        Case::new("conv2d", shapes, move |s, x| {
            ops::conv2d(s, &x[0], &x[1], x.get(2), options)
        })
    };
    let base = Conv2d::default();
    let square = Pool2d::square(2);
    let overlapping = Pool2d {
        kernel: [3, 2],
        stride: [1, 2],
        padding: [1, 1],
    };
    let mut cases = vec![
        convolution(&[&[2, 2, 4, 5], &[3, 2, 3, 2], &[3]], base),
        convolution(&[&[1, 2, 3, 3], &[2, 2, 1, 1]], base),
        convolution(
            &[&[2, 1, 5, 4], &[2, 1, 3, 3], &[2]],
            Conv2d {
                stride: [2, 1],
                padding: [1, 2],
                ..base
            },
        ),
        convolution(
            &[&[1, 4, 5, 5], &[6, 2, 2, 2], &[6]],
            Conv2d {
                dilation: [2, 3],
                stride: [1, 2],
                groups: 2,
                padding: [0, 1],
            },
        ),
    ];
    for pool in [square, overlapping] {
        let shape: &[&[usize]] = &[&[2, 2, 5, 4]];
        cases.push(Case::new("max_pool2d", shape, move |s, x| {
            ops::max_pool2d(s, &x[0], pool)
        }));
        cases.push(Case::new("avg_pool2d", shape, move |s, x| {
            ops::avg_pool2d(s, &x[0], pool)
        }));
    }
    cases
}
