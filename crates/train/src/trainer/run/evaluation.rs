//! Evaluation while a run is under way: the measures, and the best model so far.

use bertha_tensor::Tensor;

use super::Run;
use crate::TrainError;
use crate::random::Seed;
use crate::record::Record;
use crate::trainer::checkpoint::{BEST, Best, write_folder};
use crate::trainer::rounding::Rounded;
use crate::trainer::{Scores, Task, evaluate};

impl Run<'_> {
    /// Lets `work` see the model as it is evaluated and saved: with the averaged weights, where there are.
    pub(super) fn with_final_weights<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let Some(ema) = &self.ema else {
            return work(self);
        };
        let parameters = self.trainer.model.parameters.clone();
        let last: Vec<Tensor> = parameters.iter().map(|p| p.value()).collect();
        for parameter in &parameters {
            if let Some(mean) = ema.get(parameter.name()) {
                parameter.set(mean.clone())?;
            }
        }
        let result = work(self);
        for (parameter, value) in parameters.iter().zip(last) {
            parameter.set(value)?;
        }
        result
    }

    /// Evaluates the model, and keeps it where it is the best so far.
    pub(super) fn evaluate(&mut self) -> Result<(), TrainError> {
        self.with_final_weights(|run| {
            run.scores = run.evaluated()?;
            let value = run.scores.get(&run.metric).copied();
            let value = value.ok_or_else(|| TrainError::Setting {
                setting: "the measure of the best model",
                found: format!("`{}`", run.metric),
                expected: format!(
                    "one of {}",
                    run.scores.keys().cloned().collect::<Vec<_>>().join(", ")
                ),
            })?;
            let better =
                run.state
                    .best
                    .as_ref()
                    .is_none_or(|best| match Task::is_gain(&run.metric) {
                        true => value > best.value,
                        false => value < best.value,
                    });
            // NaN (a correlation of constants) is better than nothing, and worse than everything.
            let best = run.state.best.as_ref();
            let better = better || best.is_some_and(|best| best.value.is_nan() && !value.is_nan());
            let step = run.state.step;
            let mut record = Record::new(step).with("epoch", run.epoch());
            for (name, &value) in &run.scores {
                record = record.with(&format!("dev_{name}"), value);
            }
            if let Some(recorder) = &mut run.recorder {
                recorder.write(&record)?;
            }
            if better {
                run.state.best = Some(Best {
                    step,
                    metric: run.metric.clone(),
                    value,
                });
                run.state.stale = 0;
                if let Some(folder) = run.folder().map(|folder| folder.join(BEST)) {
                    write_folder(&folder, |to| run.save_model(to))?;
                }
            } else {
                run.state.stale += 1;
            }
            let scores = std::mem::take(&mut run.scores);
            run.trainer.observer.evaluated(step, &scores, better);
            run.scores = scores;
            run.draw()
        })
    }

    pub(super) fn evaluated(&self) -> Result<Scores, TrainError> {
        let trainer = &self.trainer;
        let Some(data) = &trainer.evaluation else {
            return Ok(Scores::new());
        };
        let options = &trainer.options;
        let rounded = Rounded::of(trainer)?;
        let scores = evaluate(
            &trainer.session,
            trainer.model.model.as_ref(),
            trainer.task,
            data,
            trainer.masker.as_ref(),
            (options.evaluation_batch_tokens, Seed::new(options.seed)),
        );
        rounded.restore()?;
        scores
    }
}
