//! Trains a network of two layers to read handwritten digits: the general operations, a loop, and nothing else.
//!
//! ```sh
//! # The folder holds the four MNIST files, unpacked (gunzip *.gz).
//! cargo run --release --example mnist_mlp -- path/to/mnist
//! ```

use std::error::Error;

use bertha::autograd::ops::{self, CrossEntropyOptions};
use bertha::autograd::{AutogradError, Gradients, Parameter, Session, Var};
use bertha::tensor::Tensor;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

#[path = "mnist/data.rs"]
mod data;

/// `relu(x·W₁ + b₁)·W₂ + b₂` on the pixels.
struct Network {
    weight1: Parameter,
    bias1: Parameter,
    weight2: Parameter,
    bias2: Parameter,
}

impl Network {
    fn new(hidden: usize, random: &mut StdRng) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            weight1: weight("weight1", &[data::PIXELS, hidden], data::PIXELS, random)?,
            bias1: Parameter::new("bias1", Tensor::full(0.0_f32, &[hidden])?),
            weight2: weight("weight2", &[hidden, 10], hidden, random)?,
            bias2: Parameter::new("bias2", Tensor::full(0.0_f32, &[10])?),
        })
    }

    fn parameters(&self) -> [&Parameter; 4] {
        [&self.weight1, &self.bias1, &self.weight2, &self.bias2]
    }

    /// Images `[B,1,28,28]` to logits `[B,10]`.
    fn forward(&self, session: &Session, images: Tensor) -> Result<Var, AutogradError> {
        let batch = images.shape()[0];
        let x = ops::reshape(session, &Var::constant(images), &[batch, data::PIXELS])?;
        let x = ops::matmul(session, &x, &self.weight1.var())?;
        let x = ops::relu(session, &ops::add(session, &x, &self.bias1.var())?)?;
        let x = ops::matmul(session, &x, &self.weight2.var())?;
        ops::add(session, &x, &self.bias2.var())
    }
}

/// Values of deviation √(2/inputs), which keeps the deviation through a ReLU (He et al. 2015).
fn weight(
    name: &str,
    shape: &[usize],
    inputs: usize,
    random: &mut StdRng,
) -> Result<Parameter, Box<dyn Error>> {
    let bound = (6.0 / inputs as f32).sqrt();
    let len = shape.iter().product();
    let values: Vec<f32> = (0..len)
        .map(|_| random.random_range(-bound..bound))
        .collect();
    Ok(Parameter::new(name, Tensor::from_vec(values, shape)?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (train, test) = data::from_arguments()?;
    let session = Session::new(None)?;
    let mut random = StdRng::seed_from_u64(1);
    let network = Network::new(128, &mut random)?;

    let (epochs, batch, rate, momentum) = (5, 64, 0.02, 0.9);
    let zeros = |parameter: &Parameter| vec![0.0_f32; parameter.numel()];
    let mut velocities = network.parameters().map(zeros);
    let mut gradients = Gradients::new();
    let mut order: Vec<usize> = (0..train.len()).collect();
    for epoch in 1..=epochs {
        order.shuffle(&mut random);
        let mut total = 0.0;
        for indices in order.chunks_exact(batch) {
            let (images, labels) = train.batch(indices)?;
            let logits = network.forward(&session, images)?;
            let loss =
                ops::cross_entropy(&session, logits, &labels, &CrossEntropyOptions::default())?;
            total += f64::from(loss.tensor().item::<f32>()?);
            gradients.clear();
            loss.backward(&session, &mut gradients)?;
            for (parameter, velocity) in network.parameters().into_iter().zip(&mut velocities) {
                let gradient = gradients.get(parameter).ok_or("no gradient")?;
                let gradient = gradient.as_slice::<f32>()?;
                parameter.update(|weights: &mut [f32]| {
                    for ((weight, speed), slope) in weights.iter_mut().zip(velocity).zip(gradient) {
                        *speed = momentum * *speed + slope;
                        *weight -= rate * *speed;
                    }
                })?;
            }
        }
        let loss = total / (train.len() / batch) as f64;
        let accuracy =
            test.accuracy(|images| Ok(network.forward(&session, images)?.into_tensor()))?;
        println!(
            "epoch {epoch}: loss {loss:.4}, test accuracy {:.2} %",
            100.0 * accuracy
        );
    }
    Ok(())
}
