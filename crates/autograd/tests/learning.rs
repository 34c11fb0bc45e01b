//! Small networks of the general operations learn what they are shown.

use bertha_autograd::ops::{self, Conv2d, CrossEntropyOptions, Reduction};
use bertha_autograd::{AutogradError, Gradients, Parameter, Session, Var};
use bertha_tensor::Tensor;

/// Values between −1 and 1 that look random and are the same each time.
fn parameter(name: &str, shape: &[usize], seed: u32) -> Parameter {
    let len: usize = shape.iter().product();
    let value = |i| {
        let bits = (i as u32 + 1 + 1000 * seed).wrapping_mul(2654435761);
        (bits >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let values = (0..len).map(value).collect();
    Parameter::new(name, Tensor::from_vec(values, shape).unwrap())
}

/// Gradient descent; the losses before and after.
fn train(
    session: &Session,
    parameters: &[Parameter],
    rate: f32,
    steps: usize,
    loss: impl Fn() -> Result<Var, AutogradError>,
) -> Result<(f32, f32), AutogradError> {
    let value = || Ok::<f32, AutogradError>(loss()?.tensor().item()?);
    let before = value()?;
    let mut gradients = Gradients::new();
    for _ in 0..steps {
        gradients.clear();
        loss()?.backward(session, &mut gradients)?;
        for (parameter, gradient) in gradients.iter() {
            let gradient = gradient.as_slice::<f32>()?;
            parameter.update(|weights: &mut [f32]| {
                let pairs = weights.iter_mut().zip(gradient);
                pairs.for_each(|(weight, slope)| *weight -= rate * slope);
            })?;
        }
    }
    assert_eq!(gradients.iter().count(), parameters.len());
    Ok((before, value()?))
}

#[test]
fn two_layers_learn_exclusive_or() -> Result<(), AutogradError> {
    let session = Session::new(Some(1)).unwrap();
    let x = Tensor::from_vec(vec![0.0_f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], &[4, 2])?;
    let (x, targets) = (Var::constant(x), [0.0, 1.0, 1.0, 0.0]);
    let parameters = [
        parameter("w1", &[2, 8], 1),
        parameter("b1", &[8], 2),
        parameter("w2", &[8, 1], 3),
        parameter("b2", &[1], 4),
    ];
    let loss = || {
        let [w1, b1, w2, b2] = parameters.each_ref().map(Parameter::var);
        let hidden = ops::matmul(&session, &x, &w1)?;
        let hidden = ops::tanh(&session, &ops::add(&session, &hidden, &b1)?)?;
        let logits = ops::add(&session, &ops::matmul(&session, &hidden, &w2)?, &b2)?;
        ops::binary_cross_entropy(&session, logits, &targets, Reduction::Mean)
    };
    let (before, after) = train(&session, &parameters, 0.5, 1000, loss)?;
    assert!(before > 0.5 && after < 0.02, "from {before} to {after}");
    Ok(())
}

#[test]
fn a_convolution_learns_which_way_stripes_run() -> Result<(), AutogradError> {
    let session = Session::new(Some(1)).unwrap();
    // Stripes of period 3, in every phase: along rows, then along columns.
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for direction in 0..2 {
        for phase in 0..3 {
            for y in 0..6 {
                let bright = |x| ([y, x][direction] + phase) % 3 == 0;
                pixels.extend((0..6).map(|x| f32::from(u8::from(bright(x)))));
            }
            labels.push(direction as i64);
        }
    }
    let images = Var::constant(Tensor::from_vec(pixels, &[6, 1, 6, 6])?);
    let parameters = [
        parameter("kernels", &[4, 1, 3, 3], 1),
        parameter("bias", &[4], 2),
        parameter("weight", &[4, 2], 3),
    ];
    let loss = || {
        let [kernels, bias, weight] = parameters.each_ref().map(Parameter::var);
        let x = ops::conv2d(&session, &images, &kernels, Some(&bias), Conv2d::default())?;
        let x = ops::mean(&session, &ops::relu(&session, &x)?, &[2, 3], false)?;
        let logits = ops::matmul(&session, &x, &weight)?;
        ops::cross_entropy(&session, logits, &labels, &CrossEntropyOptions::default())
    };
    let (before, after) = train(&session, &parameters, 0.3, 600, loss)?;
    assert!(before > 0.5 && after < 0.05, "from {before} to {after}");
    Ok(())
}
