//! How much each layer alone changes what a model gives, and which layers to spare for a budget.

use bertha_autograd::Session;
use bertha_models::{Config, ForwardOptions, Head, Model, load_checkpoint};
use bertha_nn::Batch;
use bertha_tensor::Checkpoint;
use serde::Serialize;

use crate::{Calibration, CompressError, Settings, linear_layers, quantize};

/// What happens when the weights of one product alone are quantized.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// The weights.
    pub weights: Vec<String>,
    /// `‖y − ŷ‖/‖y‖` of what the model gives on the texts: logits, or token vectors.
    pub error: f64,
}

/// A model to be quantized, and the texts that its outputs are compared on.
struct Trial<'a> {
    session: &'a Session,
    model: &'a dyn Model,
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    head: Head,
    calibration: &'a Calibration,
    batches: &'a [Batch],
    expected: Vec<f32>,
}

impl<'a> Trial<'a> {
    fn new(
        session: &'a Session,
        model: &'a dyn Model,
        (checkpoint, config): (&'a Checkpoint, &'a Config),
        calibration: &'a Calibration,
        batches: &'a [Batch],
    ) -> Result<Self, CompressError> {
        Ok(Self {
            session,
            model,
            checkpoint,
            config,
            head: model.info().head,
            calibration,
            batches,
            expected: outputs(session, model, batches)?,
        })
    }

    /// The relative error of the outputs of the model by these settings.
    fn error(&self, settings: &Settings) -> Result<f64, CompressError> {
        let quantized = quantize(
            self.session,
            self.model,
            self.checkpoint,
            self.config,
            settings,
            Some(self.calibration),
        )?;
        let checkpoint = quantized.checkpoint();
        let model = load_checkpoint(&checkpoint, &quantized.config, self.head, self.session)?;
        let found = outputs(self.session, &*model, self.batches)?;
        let square = |x: f64| x * x;
        let pairs = self.expected.iter().zip(&found);
        let left: f64 = pairs
            .map(|(&y, &z)| square(f64::from(y) - f64::from(z)))
            .sum();
        let all: f64 = self.expected.iter().map(|&y| square(f64::from(y))).sum();
        Ok((left / all.max(f64::MIN_POSITIVE)).sqrt())
    }
}

/// Logits, or token vectors.
fn outputs(
    session: &Session,
    model: &dyn Model,
    batches: &[Batch],
) -> Result<Vec<f32>, CompressError> {
    let session = session.no_grad();
    let mut all = Vec::new();
    for batch in batches {
        let outputs = model.forward(&session, batch, &ForwardOptions::default())?;
        let logits = [outputs.logits, outputs.start_logits, outputs.end_logits];
        let mut given: Vec<_> = logits.into_iter().flatten().collect();
        if given.is_empty() {
            given.push(outputs.last_hidden_state);
        }
        for values in given {
            all.extend_from_slice(values.as_slice()?);
        }
    }
    Ok(all)
}

/// How much the weights of each product alone change what the model gives on the batches: the largest first.
///
/// # Errors
/// As [`quantize`].
pub fn sensitivities(
    session: &Session,
    model: &dyn Model,
    of: (&Checkpoint, &Config),
    settings: &Settings,
    calibration: &Calibration,
    batches: &[Batch],
) -> Result<Vec<Sensitivity>, CompressError> {
    let trial = Trial::new(session, model, of, calibration, batches)?;
    let layers = linear_layers(model, session)?;
    let of_settings = |names: &Vec<String>| {
        let wanted = |name: &&String| settings.format_of(name).is_some() && of.0.contains(name);
        names.iter().filter(wanted).cloned().collect::<Vec<_>>()
    };
    let layers: Vec<Vec<String>> = layers.iter().map(of_settings).collect();
    let layers: Vec<Vec<String>> = layers
        .into_iter()
        .filter(|names| !names.is_empty())
        .collect();
    let mut found = Vec::with_capacity(layers.len());
    for (i, weights) in layers.iter().enumerate() {
        let mut alone = settings.clone();
        alone.embeddings = None;
        let others = layers.iter().enumerate().filter(|(j, _)| *j != i);
        alone
            .spared
            .extend(others.flat_map(|(_, names)| names).cloned());
        let error = trial.error(&alone)?;
        let weights = weights.clone();
        found.push(Sensitivity { weights, error });
    }
    found.sort_by(|a, b| b.error.total_cmp(&a.error));
    Ok(found)
}

/// Settings that spare as few of the most sensitive layers as keep the relative error of the outputs within a budget; and
/// that error.
///
/// # Errors
/// When not even one quantized layer keeps the budget, and as [`quantize`].
pub fn spare(
    session: &Session,
    model: &dyn Model,
    of: (&Checkpoint, &Config),
    settings: &Settings,
    (calibration, batches): (&Calibration, &[Batch]),
    (ranked, budget): (&[Sensitivity], f64),
) -> Result<(Settings, f64), CompressError> {
    let trial = Trial::new(session, model, of, calibration, batches)?;
    let sparing = |count: usize| {
        let mut settings = settings.clone();
        let spared = ranked[..count].iter().flat_map(|layer| &layer.weights);
        settings.spared.extend(spared.cloned());
        settings
    };
    let (mut low, mut high) = (0, ranked.len());
    let mut best = None;
    while low < high {
        let middle = usize::midpoint(low, high);
        let settings = sparing(middle);
        let error = trial.error(&settings)?;
        if error <= budget {
            best = Some((settings, error));
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    best.ok_or_else(|| {
        CompressError::Settings(format!(
            "no layer can be quantized within a relative error of {budget}: allow more, or take more bits"
        ))
    })
}
