//! Who watches a run: a progress bar, a test, whoever wants to stop it.

use std::path::Path;
use std::time::Duration;

use super::Scores;

/// What a run is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Updates of the whole run.
    pub steps: u64,
    /// Updates that were made before this run resumed.
    pub done: u64,
    /// Examples of an epoch.
    pub examples: usize,
    /// Tokens of an epoch.
    pub tokens: usize,
    /// Values of all parameters.
    pub parameters: usize,
}

/// How far a run is, after an update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Updates made, this one included.
    pub step: u64,
    /// Updates of the whole run.
    pub steps: u64,
    /// Passes over the data, with the part of the last.
    pub epoch: f64,
    /// The loss of the update.
    pub loss: f64,
    /// The learning rate of the update.
    pub learning_rate: f64,
    /// The norm of the update's gradient before it was cut.
    pub gradient_norm: f64,
    /// Tokens that this process has trained on since it started or resumed.
    pub tokens: u64,
    /// The time that took, evaluation and saving left out.
    pub elapsed: Duration,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// With the next update.
    Continue,
    /// No: save a checkpoint and end.
    Stop,
}

/// Is told what a run does. Every method has a default that does nothing.
pub trait Observer {
    /// The run begins.
    fn started(&mut self, plan: &Plan) {
        let _ = plan;
    }

    /// An update was made.
    fn step(&mut self, progress: &Progress) -> Signal {
        let _ = progress;
        Signal::Continue
    }

    /// The model was evaluated; `best` says whether it is the best so far.
    fn evaluated(&mut self, step: u64, scores: &Scores, best: bool) {
        let _ = (step, scores, best);
    }

    /// A checkpoint or a model was saved.
    fn saved(&mut self, folder: &Path) {
        let _ = folder;
    }
}

/// Nobody watches.
impl Observer for () {}
