//! Folders of a run that appear whole or not at all, and the state that a run goes on from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bertha_autograd::Parameter;
use bertha_tensor::{AtomicFile, Checkpoint, Tensor, save_safetensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::options::FREE;
use crate::TrainError;
use crate::collate::Cursor;
use crate::optim::{Ema, Optimizer};

/// The folder of a run that its checkpoints are in.
pub(super) const CHECKPOINTS: &str = "checkpoints";
/// The folder of a run that holds the best model so far.
pub(super) const BEST: &str = "best";
const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
/// The version of the state's format.
const FORMAT: u32 = 1;

/// The best evaluation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The number of updates that the model had.
    pub step: u64,
    /// The measure.
    pub metric: String,
    /// Its value.
    pub value: f64,
}

/// All of a run but its tensors, after an update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    format: u32,
    /// Updates made.
    pub(super) step: u64,
    /// Batches computed, on all ranks; dropout is drawn by them.
    pub(super) micro_batches: u64,
    /// Examples and tokens seen, on all ranks.
    pub(super) examples: u64,
    pub(super) tokens: u64,
    /// The place in the data.
    pub(super) cursor: Cursor,
    optimizer_updates: u64,
    ema_updates: Option<u64>,
    pub(super) best: Option<Best>,
    /// Evaluations since the best.
    pub(super) stale: usize,
    /// What the run must have in common with the one that goes on: settings, data, ranks.
    setup: Value,
}

impl State {
    /// The state of a run that begins.
    pub(super) fn new(setup: Value) -> Self {
        Self {
            format: FORMAT,
            step: 0,
            micro_batches: 0,
            examples: 0,
            tokens: 0,
            cursor: Cursor::default(),
            optimizer_updates: 0,
            ema_updates: None,
            best: None,
            stale: 0,
            setup,
        }
    }

    /// Writes state and moments into a checkpoint's folder.
    pub(super) fn write(
        &mut self,
        folder: &Path,
        optimizer: &Optimizer,
        ema: Option<&Ema>,
        weights: &[Parameter],
    ) -> Result<(), TrainError> {
        self.optimizer_updates = optimizer.updates();
        self.ema_updates = ema.map(Ema::updates);
        let mut tensors = optimizer.export();
        if let Some(ema) = ema {
            tensors.extend(ema.export());
            // The model beside them is the mean.
            let weights = weights.iter();
            tensors.extend(weights.map(|w| (format!("weight.{}", w.name()), w.value())));
        }
        let tensors: Vec<(&str, &Tensor)> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        save_safetensors(folder.join(TENSORS), &tensors, None)?;
        let json = serde_json::to_value(&*self).unwrap_or(Value::Null);
        write_text(&folder.join(STATE), &format!("{json:#}\n"))
    }

    /// Reads what [`State::write`] wrote, into the optimizer, the mean and the weights, for a run of this
    /// `setup`.
    pub(super) fn read(
        folder: &Path,
        setup: &Value,
        optimizer: &mut Optimizer,
        ema: Option<&mut Ema>,
        weights: &[Parameter],
    ) -> Result<Self, TrainError> {
        let path = folder.join(STATE);
        let text = fs::read(&path).map_err(TrainError::io(&path, "read the checkpoint"))?;
        let state: Self = serde_json::from_slice(&text).map_err(|error| TrainError::Malformed {
            path: path.clone(),
            found: error.to_string(),
            expected: "the state of a training run".into(),
        })?;
        if state.format != FORMAT {
            return Err(TrainError::Malformed {
                path,
                found: format!("format {}", state.format),
                expected: format!("format {FORMAT}"),
            });
        }
        check_setup(folder, &state.setup, setup)?;
        let file = Checkpoint::open(folder.join(TENSORS))?;
        let tensors: BTreeMap<String, Tensor> = file
            .names()
            .map(|name| Ok((name.to_owned(), file.get(name)?)))
            .collect::<Result<_, TrainError>>()?;
        let model = Checkpoint::open(folder.join("model.safetensors"))?;
        for weight in weights {
            let saved = match state.ema_updates {
                Some(_) => tensors.get(&format!("weight.{}", weight.name())).cloned(),
                None => model.get(weight.name()).ok(),
            };
            let saved = saved.ok_or_else(|| TrainError::Run {
                path: folder.to_path_buf(),
                problem: format!(
                    "the checkpoint has no parameter `{}`: it is of another model",
                    weight.name()
                ),
            })?;
            weight.set(saved.copy())?;
        }
        let named = || tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        let moments = named().filter(|(name, _)| name.starts_with("optimizer."));
        optimizer.import(state.optimizer_updates, moments)?;
        if let (Some(ema), Some(updates)) = (ema, state.ema_updates) {
            ema.import(
                updates,
                named().filter(|(name, _)| name.starts_with("ema.")),
            )?;
        }
        Ok(state)
    }
}

/// Settings that older checkpoints do not have, by what all runs had then.
const THEN: [(&str, &str); 1] = [("precision", "f32")];

/// Refuses a checkpoint of a run with other settings, naming the first that differs.
fn check_setup(folder: &Path, saved: &Value, now: &Value) -> Result<(), TrainError> {
    fn difference(at: &str, saved: &Value, now: &Value) -> Option<String> {
        match (saved, now) {
            (Value::Object(a), Value::Object(b)) => a
                .keys()
                .chain(b.keys())
                .filter(|key| !FREE.contains(&key.as_str()))
                .find_map(|key| {
                    let get = |map: &serde_json::Map<String, Value>| {
                        let then = THEN.iter().find(|(name, _)| name == key);
                        let then = || then.map_or(Value::Null, |(_, value)| Value::from(*value));
                        map.get(key).cloned().unwrap_or_else(then)
                    };
                    let at = match at {
                        "" => key.clone(),
                        _ => format!("{at}.{key}"),
                    };
                    difference(&at, &get(a), &get(b))
                }),
            _ if saved == now => None,
            _ => Some(format!("`{at}` was {saved} and is now {now}")),
        }
    }
    match difference("", saved, now) {
        None => Ok(()),
        Some(problem) => Err(TrainError::Run {
            path: folder.to_path_buf(),
            problem: format!(
                "the checkpoint is of another run: {problem}; resume with the settings and data that it began \
                 with"
            ),
        }),
    }
}

/// The checkpoints of a run, by rising step.
pub(super) fn checkpoints(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = run.join(CHECKPOINTS);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(&folder).map_err(TrainError::io(&folder, "list"))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io(&folder, "list"))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// The folder of a checkpoint.
pub(super) fn checkpoint_folder(run: &Path, step: u64) -> PathBuf {
    run.join(CHECKPOINTS).join(format!("step-{step}"))
}

/// Removes all but the last `keep` checkpoints (at least one is kept), and what killed runs left unfinished.
pub(super) fn prune(run: &Path, keep: usize) -> Result<(), TrainError> {
    let found = checkpoints(run)?;
    for (_, path) in found.iter().rev().skip(keep.max(1)) {
        fs::remove_dir_all(path).map_err(TrainError::io(path, "remove the old checkpoint"))?;
    }
    for folder in [run.to_path_buf(), run.join(CHECKPOINTS)] {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with(UNFINISHED))
            {
                // What cannot be removed does no harm.
                drop(fs::remove_dir_all(entry.path()));
            }
        }
    }
    Ok(())
}

/// What the names of folders that are being written, or being replaced, begin with.
const UNFINISHED: &str = ".unfinished-";

/// Makes a folder under another name, lets `fill` write into it, and gives it its name, in place of one
/// that is there.
pub(super) fn write_folder(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let parent = target.parent().unwrap_or(Path::new("."));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let other =
        |what: &str| parent.join(format!("{UNFINISHED}{}-{what}-{name}", std::process::id()));
    let (new, old) = (other("new"), other("old"));
    fs::create_dir_all(&new).map_err(TrainError::io(&new, "create the folder"))?;
    let filled = fill(&new).and_then(|()| sync(&new));
    let named = filled.and_then(|()| {
        if target.exists() {
            fs::rename(target, &old).map_err(TrainError::io(target, "replace"))?;
        }
        fs::rename(&new, target).map_err(TrainError::io(target, "give the folder its name"))?;
        sync(parent)
    });
    drop(fs::remove_dir_all(&old));
    if named.is_err() {
        drop(fs::remove_dir_all(&new));
    }
    named
}

/// Makes a folder's entries last.
fn sync(folder: &Path) -> Result<(), TrainError> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(TrainError::io(folder, "write the folder"))?;
    Ok(())
}

/// Writes a file that appears whole or not at all.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), TrainError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes())
        .map_err(TrainError::io(path, "write"))?;
    Ok(file.commit()?)
}

/// Copies the files of a tokenizer, those that there are, from one folder to another.
pub(super) fn copy_tokenizer(from: &Path, to: &Path) -> Result<(), TrainError> {
    for name in bertha_tokenizer::TOKENIZER_FILES {
        let path = from.join(name);
        if path.exists() {
            let bytes = fs::read(&path).map_err(TrainError::io(&path, "read"))?;
            let target = to.join(name);
            let mut file = AtomicFile::create(&target)?;
            file.write_all(&bytes)
                .map_err(TrainError::io(&target, "write"))?;
            file.commit()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        let text = |text: &'static str| move |folder: &Path| write_text(&folder.join("a"), text);
        write_folder(&target, text("1")).unwrap();
        write_folder(&target, text("2")).unwrap();
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "2");
        let failed = write_folder(&target, |folder| {
            write_text(&folder.join("a"), "3")?;
            Err(TrainError::Labels("no".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(target.join("a")).unwrap(), "2");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_last_checkpoints_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for step in [5, 100, 20] {
            fs::create_dir_all(checkpoint_folder(dir.path(), step)).unwrap();
        }
        fs::create_dir_all(
            dir.path()
                .join(CHECKPOINTS)
                .join(".unfinished-1-new-step-7"),
        )
        .unwrap();
        prune(dir.path(), 2).unwrap();
        let steps: Vec<u64> = checkpoints(dir.path())
            .unwrap()
            .iter()
            .map(|c| c.0)
            .collect();
        assert_eq!(steps, [20, 100]);
        let folder = dir.path().join(CHECKPOINTS);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }

    #[test]
    fn another_run_is_named() {
        let setup = |lr: f64, log: u64| serde_json::json!({"options": {"learning_rate": lr, "log_every": log}, "examples": 3});
        check_setup(Path::new("x"), &setup(1.0, 1), &setup(1.0, 2)).unwrap();
        let error = check_setup(Path::new("x"), &setup(1.0, 1), &setup(2.0, 1)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`options.learning_rate` was 1.0 and is now 2.0")
        );
    }
}
