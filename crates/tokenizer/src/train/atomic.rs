//! Several files that appear together, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::TrainError;

/// Writes files into a folder. All are written under temporary names first. A folder that is not there yet is written
/// beside its place and renamed as a whole; in one that is, each file is renamed once all are complete, and then the
/// files `old` are removed. After an error nothing is left of the new files.
pub(super) fn write_folder(
    dir: &Path,
    files: &[(&str, Vec<u8>)],
    old: &[&str],
) -> Result<(), TrainError> {
    if dir.is_dir() {
        return replace(dir, files, old);
    }
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    let name = dir.file_name().unwrap_or(dir.as_os_str());
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(suffix());
    let temporary = dir.with_file_name(hidden);
    fs::create_dir(&temporary).map_err(at(dir))?;
    let written = files
        .iter()
        .try_for_each(|(name, bytes)| write(&temporary.join(name), &dir.join(name), bytes))
        .and_then(|()| fs::rename(&temporary, dir).map_err(at(dir)));
    match &written {
        Ok(()) => sync(dir.parent()),
        // Nobody is left to tell if even this fails.
        Err(_) => drop(fs::remove_dir_all(&temporary)),
    }
    written
}

fn replace(dir: &Path, files: &[(&str, Vec<u8>)], old: &[&str]) -> Result<(), TrainError> {
    let suffix = suffix();
    let temporaries: Vec<(PathBuf, PathBuf)> = files
        .iter()
        .map(|(name, _)| (dir.join(format!(".{name}{suffix}")), dir.join(name)))
        .collect();
    let written = temporaries
        .iter()
        .zip(files)
        .try_for_each(|((temporary, target), (_, bytes))| write(temporary, target, bytes))
        .and_then(|()| {
            let mut renames = temporaries.iter();
            renames.try_for_each(|(from, to)| fs::rename(from, to).map_err(at(to)))
        });
    if let Err(error) = written {
        for (temporary, _) in &temporaries {
            let _ = fs::remove_file(temporary);
        }
        return Err(error);
    }
    for name in old {
        let path = dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            _ => {}
        }
    }
    sync(Some(dir));
    Ok(())
}

fn write(temporary: &Path, target: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(at(target))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> TrainError {
    let path = path.to_path_buf();
    |source| TrainError::Write { path, source }
}

/// What no other process or call ends its temporary names with.
fn suffix() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".{}-{number}.tmp", process::id())
}

/// Makes the renames durable, where a folder can be synced. The files are complete either way.
fn sync(folder: Option<&Path>) {
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    if cfg!(unix)
        && let Ok(folder) = File::open(folder.unwrap_or(Path::new(".")))
    {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn all_or_nothing() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        let files = |text: &str| [("one", text.into()), ("two", text.into())];
        write_folder(&dir, &files("first"), &[]).unwrap();
        assert_eq!(names(&dir), ["one", "two"]);
        assert_eq!(names(&base.path().join("a")), ["b"]);
        fs::write(dir.join("three"), "").unwrap();
        write_folder(&dir, &files("second"), &["three", "four"]).unwrap();
        assert_eq!(names(&dir), ["one", "two"]);
        assert_eq!(fs::read(dir.join("two")).unwrap(), b"second");
        // A file stands where a file of the folder should be renamed to: a folder.
        fs::remove_file(dir.join("two")).unwrap();
        fs::create_dir(dir.join("two")).unwrap();
        let error = write_folder(&dir, &files("third"), &["one"]).unwrap_err();
        assert!(error.to_string().contains("two"), "{error}");
        assert_eq!(names(&dir), ["one", "two"]);
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        let error = write_folder(&file.join("dir"), &files("x"), &[]).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        assert_eq!(names(base.path()), ["a", "file"]);
        assert!(write_folder(&file, &files("x"), &[]).is_err());
        assert_eq!(names(base.path()), ["a", "file"]);
    }
}
