//! What a run leaves: checkpoints, its picture, and in the end the model.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bertha_tensor::Checkpoint;

use super::{RECORD, Run};
use crate::TrainError;
use crate::curve;
use crate::record::read_records;
use crate::trainer::checkpoint::{
    BEST, checkpoint_folder, copy_tokenizer, prune, write_folder, write_text,
};
use crate::trainer::{End, Outcome, Scores, Summary};

impl Run<'_> {
    /// Writes the model and its tokenizer into a folder.
    pub(super) fn save_model(&self, folder: &Path) -> Result<(), TrainError> {
        self.trainer.model.save(folder)?;
        match &self.trainer.output {
            Some(output) => copy_tokenizer(&output.tokenizer, folder),
            None => Ok(()),
        }
    }

    pub(super) fn save_checkpoint(&mut self) -> Result<(), TrainError> {
        let Some(run) = self.folder().map(Path::to_path_buf) else {
            return Ok(());
        };
        let folder = checkpoint_folder(&run, self.state.step);
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(TrainError::io(parent, "create the folder"))?;
        }
        write_folder(&folder, |to| {
            self.with_final_weights(|run| run.save_model(to))?;
            let weights = &self.trainer.model.parameters;
            self.state
                .write(to, &self.optimizer, self.ema.as_ref(), weights)
        })?;
        prune(&run, self.trainer.options.keep_checkpoints)?;
        self.draw()?;
        self.trainer.observer.saved(&folder);
        Ok(())
    }

    /// Draws the record.
    pub(super) fn draw(&self) -> Result<(), TrainError> {
        let Some(folder) = self.folder() else {
            return Ok(());
        };
        let records = read_records(folder.join(RECORD))?;
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let picture = curve::draw(&name, &curve::panels(&records));
        write_text(&folder.join("curve.svg"), &picture)
    }

    /// Takes the best weights, or the averaged ones, and saves the model.
    pub(super) fn finish(mut self, end: End) -> Result<Outcome, TrainError> {
        let best: Option<PathBuf> = self
            .trainer
            .output
            .as_ref()
            .filter(|_| self.state.best.is_some() && end != End::Stopped)
            .map(|output| output.folder.join(BEST).join("model.safetensors"));
        // The first rank has written it.
        self.trainer.collective.barrier()?;
        let last = self.state.best.as_ref().map(|best| best.step) == Some(self.state.step);
        match best.filter(|best| best.exists()) {
            Some(best) => {
                let best = Checkpoint::open(best)?;
                for parameter in &self.trainer.model.parameters {
                    parameter.set(best.get(parameter.name())?.copy())?;
                }
                if !last || self.scores.is_empty() {
                    self.scores = self.evaluated()?;
                }
            }
            None => {
                for parameter in &self.trainer.model.parameters {
                    let mean = self.ema.as_ref().and_then(|ema| ema.get(parameter.name()));
                    if let Some(mean) = mean {
                        parameter.set(mean.copy())?;
                    }
                }
                if end == End::Stopped {
                    self.scores = Scores::new();
                }
            }
        }
        if let Some(folder) = self.folder().filter(|_| end != End::Stopped) {
            self.save_model(folder)?;
            self.draw()?;
            let folder = folder.to_path_buf();
            self.trainer.observer.saved(&folder);
        }
        let [(sum, count), _] = self.losses;
        let seconds = |time: Duration| time.as_secs_f64();
        let summary = Summary {
            end,
            step: self.state.step,
            steps: self.steps,
            epoch: self.epoch(),
            loss: sum / count as f64,
            tokens: self.spent.tokens,
            seconds: seconds(self.spent.all),
            forward_seconds: seconds(self.spent.forward),
            backward_seconds: seconds(self.spent.backward),
            optimizer_seconds: seconds(self.spent.optimizer),
            best: self.state.best,
            evaluation: self.scores,
        };
        Ok(Outcome {
            model: self.trainer.model,
            summary,
        })
    }
}
