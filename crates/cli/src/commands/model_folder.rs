//! What commands that make a model folder from another have in common.

use std::fs;
use std::io::Write;
use std::path::Path;

use bertha_compress::Quantized;
use bertha_tensor::AtomicFile;
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::Output;

/// Refuses a folder that has a model, unless it may be replaced, and the folder that is read.
pub(super) fn check_output(dir: &Path, out: &Path, overwrite: bool) -> Result<()> {
    if same(dir, out) {
        return Err(Failure::usage(
            "--output is the folder that is read: give another",
        ));
    }
    if !overwrite && out.join("config.json").exists() {
        return Err(Failure::new(format!(
            "{}: the folder has a model already: give another, or --overwrite",
            out.display()
        )));
    }
    Ok(())
}

#[derive(Serialize)]
struct Packed<'a> {
    output: &'a Path,
    bytes: u64,
    bytes_before: u64,
    weights: usize,
}

/// Puts the packed form of what was trained from `dir` into the folder of its run, and says how large it is.
pub(super) fn write_packed(packed: &Quantized, dir: &Path, out: &Path) -> Result<()> {
    packed.save(out)?;
    let size = |dir: &Path| fs::metadata(dir.join("model.safetensors")).map_or(0, |m| m.len());
    let mut output = Output::stdout();
    output.line(&Packed {
        output: out,
        bytes: size(out),
        bytes_before: size(dir),
        weights: packed.layers.len(),
    })?;
    output.finish()
}

/// Copies what makes the folder one of sentence-transformers, if it is; its longest text may become another.
pub(super) fn copy_sentence_transformers(
    dir: &Path,
    out: &Path,
    max_length: Option<usize>,
) -> Result<()> {
    let modules = dir.join("modules.json");
    let Ok(bytes) = fs::read(&modules) else {
        return Ok(());
    };
    let paths: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("{}: {error}", modules.display())))?;
    let paths = paths.as_array().into_iter().flatten();
    for path in paths.filter_map(|module| module["path"].as_str()) {
        // A folder below this one, by one name.
        if path.is_empty() || Path::new(path).components().count() != 1 {
            continue;
        }
        let to = out.join(path);
        fs::create_dir_all(&to).map_err(|error| Failure::io(&to, "make the folder", &error))?;
        for name in ["config.json", "model.safetensors"] {
            copy(&dir.join(path), &to, name, |_| Ok(()))?;
        }
    }
    copy(dir, out, "sentence_bert_config.json", |config| {
        if let Some(tokens) = max_length {
            config["max_seq_length"] = tokens.into();
        }
        Ok(())
    })?;
    for name in ["config_sentence_transformers.json", "modules.json"] {
        copy(dir, out, name, |_| Ok(()))?;
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Copies a file, if it is there; one of JSON may be changed on the way.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    name: &str,
    change: impl FnOnce(&mut Value) -> Result<()>,
) -> Result<()> {
    let path = from.join(name);
    if !path.exists() {
        return Ok(());
    }
    let mut bytes = fs::read(&path).map_err(|error| Failure::io(&path, "read", &error))?;
    if name.ends_with(".json")
        && let Ok(mut json) = serde_json::from_slice::<Value>(&bytes)
        && json.is_object()
    {
        let before = json.clone();
        change(&mut json)?;
        if json != before {
            bytes = format!("{json:#}\n").into_bytes();
        }
    }
    write(&to.join(name), &bytes)
}

/// Writes a file, which appears whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)
        .map_err(|error| Failure::io(path, "write", &error))?;
    Ok(file.commit()?)
}
