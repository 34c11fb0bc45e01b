//! Trains a convolutional network to read handwritten digits: the general operations, a loop, and nothing else.
//!
//! ```sh
//! # The folder holds the four MNIST files, unpacked (gunzip *.gz).
//! cargo run --release --example mnist_cnn -- path/to/mnist
//! ```

use std::error::Error;

use bertha::autograd::ops::{self, Conv2d, CrossEntropyOptions, Pool2d};
use bertha::autograd::{AutogradError, Gradients, Parameter, Session, Var};
use bertha::tensor::Tensor;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng, rngs::StdRng};

#[path = "mnist/data.rs"]
mod data;

/// Two convolutions of 5×5, each with ReLU and pooled by 2, and a layer that reads their channels.
struct Network {
    kernels1: Parameter,
    bias1: Parameter,
    kernels2: Parameter,
    bias2: Parameter,
    weight: Parameter,
    bias: Parameter,
}

impl Network {
    fn new(channels: [usize; 2], random: &mut StdRng) -> Result<Self, Box<dyn Error>> {
        let [one, two] = channels;
        let zeros = |name, len| {
            Ok::<_, Box<dyn Error>>(Parameter::new(name, Tensor::full(0.0_f32, &[len])?))
        };
        Ok(Self {
            kernels1: weight("kernels1", &[one, 1, 5, 5], 25, random)?,
            bias1: zeros("bias1", one)?,
            kernels2: weight("kernels2", &[two, one, 5, 5], one * 25, random)?,
            bias2: zeros("bias2", two)?,
            weight: weight("weight", &[two * 4 * 4, 10], two * 4 * 4, random)?,
            bias: zeros("bias", 10)?,
        })
    }

    fn parameters(&self) -> [&Parameter; 6] {
        [
            &self.kernels1,
            &self.bias1,
            &self.kernels2,
            &self.bias2,
            &self.weight,
            &self.bias,
        ]
    }

    /// Images `[B,1,28,28]` to logits `[B,10]`.
    fn forward(&self, session: &Session, images: Tensor) -> Result<Var, AutogradError> {
        let mut x = Var::constant(images);
        for (kernels, bias) in [(&self.kernels1, &self.bias1), (&self.kernels2, &self.bias2)] {
            let (kernels, bias) = (kernels.var(), bias.var());
            x = ops::conv2d(session, &x, &kernels, Some(&bias), Conv2d::default())?;
            x = ops::max_pool2d(session, &ops::relu(session, &x)?, Pool2d::square(2))?;
        }
        // 28 → 24 → 12 → 8 → 4
        let batch = x.shape()[0];
        let x = ops::reshape(session, &x, &[batch, self.weight.shape()[0]])?;
        let x = ops::matmul(session, &x, &self.weight.var())?;
        ops::add(session, &x, &self.bias.var())
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
    let network = Network::new([8, 16], &mut random)?;

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
