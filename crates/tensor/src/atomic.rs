//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::FileError;

/// A file that is written under a temporary name beside its target and takes the target's name on
/// [`commit`](AtomicFile::commit). Dropped without that, it leaves nothing behind and the target as it was.
///
/// A symbolic link stays one: the file it points to is replaced. A target that exists and is no regular file (a pipe,
/// `/dev/stdout`) cannot be renamed over and is written directly. One that is replaced keeps its permissions.
///
/// ```
/// use std::io::Write;
/// use bertha_tensor::AtomicFile;
///
/// # let dir = tempfile::tempdir()?;
/// let target = dir.path().join("result.jsonl");
/// let mut file = AtomicFile::create(&target)?;
/// writeln!(file, "{{}}")?;
/// assert!(!target.exists());
/// file.commit()?;
/// assert!(target.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    /// `None` when the target is written directly, and once committed.
    temporary: Option<PathBuf>,
    writer: BufWriter<File>,
}

impl AtomicFile {
    /// Starts a file that will become `target`.
    ///
    /// # Errors
    /// [`FileError::Io`] if `target` is a folder, or its folder is missing or not writable.
    pub fn create(target: impl AsRef<Path>) -> Result<AtomicFile, FileError> {
        let given = target.as_ref();
        let target = fs::canonicalize(given).unwrap_or_else(|_| given.to_path_buf());
        let existing = fs::metadata(&target).ok();
        if existing.as_ref().is_some_and(|found| !found.is_file()) {
            let file = OpenOptions::new()
                .write(true)
                .open(&target)
                .map_err(FileError::io(given, "write"))?;
            return Ok(AtomicFile {
                target,
                temporary: None,
                writer: BufWriter::new(file),
            });
        }
        let (temporary, file) =
            create_beside(&target).map_err(FileError::io(given, "create a file beside"))?;
        let file = AtomicFile {
            target,
            temporary: Some(temporary),
            writer: BufWriter::new(file),
        };
        if let Some(existing) = existing {
            let keep = file
                .writer
                .get_ref()
                .set_permissions(existing.permissions());
            keep.map_err(FileError::io(given, "keep the permissions of"))?;
        }
        Ok(file)
    }

    /// The name the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes everything to the disk and gives the file its name, in place of what had that name.
    ///
    /// # Errors
    /// [`FileError::Io`] if the system refuses, for example because the disk is full; the target is then as it was.
    pub fn commit(mut self) -> Result<(), FileError> {
        let target = self.target.clone();
        self.writer
            .flush()
            .map_err(FileError::io(&target, "write"))?;
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        self.writer
            .get_ref()
            .sync_all()
            .map_err(FileError::io(&target, "write"))?;
        fs::rename(temporary, &target)
            .map_err(FileError::io(&target, "rename the finished file to"))?;
        self.temporary = None;
        sync_folder(&target);
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// For what is known only at the end and stands at the start. A target that is written directly may refuse.
impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nobody is left to tell if even this fails.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// A new hidden file in the folder of `target`, of a name that no other process or thread uses.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no file name"))?;
    loop {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(
            ".{}-{}.tmp",
            process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        ));
        let path = target.with_file_name(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            // A process of the same id may have died here before: try the next number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|file| (path, file)),
        }
    }
}

/// Makes the rename itself durable, where a folder can be synced. The file is complete either way.
fn sync_folder(target: &Path) {
    let folder = target
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if cfg!(unix)
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}
