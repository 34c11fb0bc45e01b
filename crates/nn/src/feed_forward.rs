//! The position-wise feed-forward block.

use bertha_autograd::{Precision, Session, Var, ops};
use bertha_kernels::Activation;
use bertha_tensor::{DType, Tensor};

use crate::{Linear, NnError};

/// Values between the layers in a part: 1,024 rows of BERT-base.
const INNER_VALUES: usize = 1024 * 3072;

/// `dropout(down(act(up(x)))) + residual`, or gated, `dropout(down(act(a)·b)) + residual` of `[a|b] = up(x)`
/// (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
pub struct FeedForward {
    up: Linear,
    down: Linear,
    activation: Activation,
    gated: bool,
    /// Probability that a value between the layers is dropped in training.
    inner_dropout: f32,
    /// Probability that a value of the output is dropped in training.
    dropout: f32,
}

impl FeedForward {
    /// From the layer up (`[T,N]` to `[T,I]`), the layer down, and what lies between.
    pub fn new(up: Linear, down: Linear, activation: Activation) -> Self {
        Self {
            up,
            down,
            activation,
            gated: false,
            inner_dropout: 0.0,
            dropout: 0.0,
        }
    }

    /// Gated: the layer up gives `[T, 2·I]`, the half that is activated first.
    #[must_use]
    pub fn gated(mut self) -> Self {
        self.gated = true;
        self
    }

    /// Sets the probabilities of dropping values between the layers, and of the output, in training.
    #[must_use]
    pub fn with_dropout(mut self, inner: f32, output: f32) -> Self {
        (self.inner_dropout, self.dropout) = (inner, output);
        self
    }

    /// `x[T,N]` to `residual[T,N] + dropout(down(act(up(x))))`, f32.
    ///
    /// # Errors
    /// When `x` has another width, or a gated block's layer up an odd one.
    pub fn forward(&self, session: &Session, x: &Var, residual: &Var) -> Result<Var, NnError> {
        match self.forward_in_parts(session, x, residual)? {
            Some(y) => Ok(y),
            None => self.forward_whole(session, x, residual),
        }
    }

    /// For inference over many rows, some at a time, which gives the same bits: what lies between the layers is the widest of a
    /// pass, and then neither takes memory by the length of a text nor leaves the caches. Nothing where rows are few.
    fn forward_in_parts(
        &self,
        session: &Session,
        x: &Var,
        residual: &Var,
    ) -> Result<Option<Var>, NnError> {
        let learns = session.is_training() || session.checkpoints() || session.is_observed();
        let tracked = x.is_tracked() || residual.is_tracked();
        let [rows, width] = *residual.shape() else {
            return Ok(None);
        };
        let most = (INNER_VALUES / self.up.outputs().max(1)).max(256);
        let f32s = [x, residual].map(|of| of.dtype() == DType::F32);
        if learns || tracked || f32s != [true; 2] || 2 * rows <= 3 * most {
            return Ok(None);
        }
        let mut all = Tensor::scratch_in(session.pool(), DType::F32, residual.shape())?;
        for first in (0..rows).step_by(most) {
            let end = rows.min(first + most);
            let part = |of: &Var| of.tensor().slice(0, first..end).map(Var::constant);
            let y = self.forward_whole(session, &part(x)?, &part(residual)?)?;
            // By its weights.
            if y.is_tracked() {
                return Ok(None);
            }
            let values = all.as_mut_slice::<f32>()?;
            values[first * width..end * width].copy_from_slice(y.tensor().as_slice()?);
        }
        Ok(Some(Var::constant(all)))
    }

    fn forward_whole(&self, session: &Session, x: &Var, residual: &Var) -> Result<Var, NnError> {
        if !self.gated
            && let Some(y) = self
                .up
                .chain(session, x, self.activation, &self.down, residual)?
        {
            return Ok(y);
        }
        let inner = if self.gated {
            let both = self.up.forward(session, x)?;
            ops::gate(session, self.activation, &both)?
        } else {
            self.up.forward_with(session, x, self.activation, None)?
        };
        let inner = ops::dropout(session, inner, self.inner_dropout)?;
        self.down
            .forward_dropout_add(session, &inner, self.dropout, residual)
    }

    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.up.parameters() + self.down.parameters()
    }

    /// Bytes of the weights, in passes of a precision.
    pub fn bytes(&self, precision: Precision) -> usize {
        self.up.bytes(precision) + self.down.bytes(precision)
    }
}

#[cfg(test)]
mod tests {
    use bertha_autograd::Parameter;

    use super::*;

    const WIDTH: usize = 8;
    /// So wide that parts have 256 rows.
    const INNER: usize = 12_288;

    fn values(shape: [usize; 2], seed: usize) -> Tensor {
        let value = |i: usize| ((i * 7 + seed) as f32 * 0.61).sin() * 0.3;
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(value).collect();
        Tensor::from_slice(&values, &shape).unwrap()
    }

    #[test]
    fn parts_of_many_rows_are_the_whole_to_the_bit() {
        for precision in Precision::ALL {
            for gated in [false, true] {
                let session = Session::new(Some(2)).unwrap().no_grad();
                let session = session.with_precision(precision);
                let between = if gated { INNER / 2 } else { INNER };
                let linear =
                    |n, k, seed| Linear::from_tensors(&session, &values([n, k], seed), None);
                let up = linear(INNER, WIDTH, 1).unwrap();
                let down = linear(WIDTH, between, 2).unwrap();
                let mut block = FeedForward::new(up, down, Activation::GeluErf);
                if gated {
                    block = block.gated();
                }
                let [x, residual] = [3, 4].map(|seed| Var::constant(values([400, WIDTH], seed)));
                let parts = block.forward_in_parts(&session, &x, &residual).unwrap();
                let parts = parts.expect("400 rows are many");
                let whole = block.forward_whole(&session, &x, &residual).unwrap();
                let [parts, whole] = [parts, whole].map(|y| y.tensor().to_vec::<f32>().unwrap());
                assert!(parts == whole, "{}, gated: {gated}", precision.name());
            }
        }
    }

    #[test]
    fn what_is_tracked_stays_so() {
        let session = Session::new(Some(1)).unwrap();
        let linear = |shape, seed| {
            let weight = Parameter::new("weight", values(shape, seed));
            Linear::from_parameters(&session, &weight, None).unwrap()
        };
        let (up, down) = (linear([INNER, WIDTH], 1), linear([WIDTH, INNER], 2));
        let block = FeedForward::new(up, down, Activation::GeluErf);
        let x = Var::constant(values([400, WIDTH], 3));
        assert!(block.forward(&session, &x, &x).unwrap().is_tracked());
    }
}
