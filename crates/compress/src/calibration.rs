//! What the inputs of a model's linear layers are like.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bertha_autograd::Session;
use bertha_kernels::{Matrix, matmul};
use bertha_models::{ForwardOptions, Model};
use bertha_nn::Batch;
use bertha_tensor::Tensor;

use crate::CompressError;

/// Sums over the tokens that a linear layer saw, `x[T,K]`.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// Tokens (T).
    pub tokens: usize,
    /// Width (K).
    pub width: usize,
    /// `xᵀ·x`, `[K,K]`.
    pub gram: Vec<f32>,
    /// Sums of magnitudes, `[K]`.
    pub sum_abs: Vec<f32>,
    /// Largest magnitudes, `[K]`.
    pub max_abs: Vec<f32>,
}

impl Statistics {
    /// Of no tokens.
    pub fn new(width: usize) -> Self {
        Self {
            tokens: 0,
            width,
            gram: vec![0.0; width * width],
            sum_abs: vec![0.0; width],
            max_abs: vec![0.0; width],
        }
    }

    /// Adds tokens `x[T,K]`.
    ///
    /// # Panics
    /// When `x` is not whole rows.
    pub fn add(&mut self, session: &Session, x: &[f32]) {
        let k = self.width;
        let rows = x.len() / k.max(1);
        assert_eq!(x.len(), rows * k, "rows of {k} values");
        let transposed = Matrix {
            data: x,
            row_stride: 1,
            column_stride: k,
        };
        let x_rows = Matrix::row_major(x, k);
        matmul(
            session.exec(),
            (k, k, rows),
            transposed,
            x_rows,
            true,
            &mut self.gram,
        );
        for row in x.chunks_exact(k.max(1)) {
            let sums = self.sum_abs.iter_mut().zip(&mut self.max_abs);
            for ((sum, most), x) in sums.zip(row) {
                *sum += x.abs();
                *most = most.max(x.abs());
            }
        }
        self.tokens += rows;
    }

    /// The mean squared output of rows `w[N,K]`, summed over the rows: `tr(w·xᵀx·wᵀ)/T`.
    pub(crate) fn output_square(&self, session: &Session, w: &[f32]) -> f64 {
        let k = self.width;
        let rows = w.len() / k.max(1);
        let mut product = vec![0.0; w.len()];
        let (a, b) = (Matrix::row_major(w, k), Matrix::row_major(&self.gram, k));
        matmul(session.exec(), (rows, k, k), a, b, false, &mut product);
        let sum: f64 = w
            .iter()
            .zip(&product)
            .map(|(&w, &p)| f64::from(w) * f64::from(p))
            .sum();
        sum.max(0.0) / self.tokens.max(1) as f64
    }
}

/// What calibration has seen: for each weight its layer's inputs. Weights that share a product share them.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    statistics: BTreeMap<String, Arc<Statistics>>,
}

impl Calibration {
    /// Runs a model on batches.
    ///
    /// # Errors
    /// When the model refuses a batch.
    pub fn run(
        model: &dyn Model,
        session: &Session,
        batches: &[Batch],
    ) -> Result<Self, CompressError> {
        let seen: Arc<Mutex<BTreeMap<Vec<String>, Statistics>>> = Arc::default();
        let (keeper, counting) = (Arc::clone(&seen), session.no_grad());
        let observed =
            session
                .no_grad()
                .observing(Arc::new(move |names: &[String], x: &Tensor| {
                    let x = x.contiguous();
                    let (Some(&width), Ok(values)) = (x.shape().last(), x.as_slice::<f32>()) else {
                        return;
                    };
                    if names.is_empty() {
                        return;
                    }
                    let mut seen = keeper.lock().unwrap_or_else(PoisonError::into_inner);
                    let statistics = seen
                        .entry(names.to_vec())
                        .or_insert_with(|| Statistics::new(width));
                    statistics.add(&counting, values);
                }));
        for batch in batches {
            model.forward(&observed, batch, &ForwardOptions::default())?;
        }
        drop(observed);
        let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut statistics = BTreeMap::new();
        for (names, of_layer) in seen {
            let of_layer = Arc::new(of_layer);
            for name in names {
                statistics.insert(name, Arc::clone(&of_layer));
            }
        }
        Ok(Self { statistics })
    }

    /// What the layer of a weight saw.
    pub fn of(&self, weight: &str) -> Option<&Statistics> {
        self.statistics.get(weight).map(|of| &**of)
    }
}

/// The names of the weights of a model's linear layers, those that share a product together, in the order that they run.
///
/// # Errors
/// When the model does not run.
pub fn linear_layers(
    model: &dyn Model,
    session: &Session,
) -> Result<Vec<Vec<String>>, CompressError> {
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let keeper = Arc::clone(&seen);
    let observed = session
        .no_grad()
        .observing(Arc::new(move |names: &[String], _: &Tensor| {
            let mut seen = keeper.lock().unwrap_or_else(PoisonError::into_inner);
            if !names.is_empty() && !seen.iter().any(|known| known == names) {
                seen.push(names.to_vec());
            }
        }));
    let tokens = model.info().max_tokens.min(4);
    let batch = Batch::from_sequences(&[vec![0; tokens]])?;
    model.forward(&observed, &batch, &ForwardOptions::default())?;
    drop(observed);
    let layers = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(layers)
}
