//! Files appear whole or not at all.

mod common;

use std::io::Write;
use std::path::Path;

use bertha_tensor::AtomicFile;
use common::Folder;

#[test]
fn a_file_appears_at_commit() {
    let folder = Folder::new();
    let path = folder.write("x.txt", "before");
    let mut file = AtomicFile::create(&path).unwrap();
    assert_eq!(file.target().file_name(), path.file_name());
    file.write_all(&[b'a'; 100_000]).unwrap();
    file.flush().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    assert_eq!(folder.names().len(), 2);
    file.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [b'a'; 100_000]);
    assert_eq!(folder.names(), ["x.txt"]);
}

#[test]
fn a_file_that_is_given_up_leaves_nothing() {
    let folder = Folder::new();
    let kept = folder.write("kept", "before");
    for path in [kept.clone(), folder.join("new")] {
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        // Nor does a panic on the way.
        let panicked = std::panic::catch_unwind(|| {
            let _file = AtomicFile::create(&path).unwrap();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(panicked.is_err());
    }
    assert_eq!(folder.names(), ["kept"]);
    assert_eq!(std::fs::read(kept).unwrap(), b"before");
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let folder = Folder::new();
    let path = folder.join("x");
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"new").unwrap();
    // A folder with something in it takes the name meanwhile: nothing can be renamed over it.
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("inside"), "").unwrap();
    let text = file.commit().unwrap_err().to_string();
    assert!(
        text.contains("cannot rename the finished file to"),
        "{text}"
    );
    assert_eq!(folder.names(), ["x"]);
    assert!(path.join("inside").exists());
}

#[test]
fn targets_that_cannot_be() {
    let folder = Folder::new();
    let nowhere = folder.join("none").join("x");
    let text = AtomicFile::create(&nowhere).unwrap_err().to_string();
    assert!(text.starts_with(&nowhere.display().to_string()), "{text}");
    let dir = folder.join("dir");
    std::fs::create_dir(&dir).unwrap();
    assert!(AtomicFile::create(&dir).is_err());
    assert!(AtomicFile::create("").is_err() && AtomicFile::create("..").is_err());
    assert_eq!(folder.names(), ["dir"]);
}

#[test]
fn many_writers_of_one_name_leave_one_of_their_files() {
    let folder = Folder::new();
    let path = folder.join("x");
    std::thread::scope(|scope| {
        for writer in 0..8_u8 {
            let path: &Path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    let mut file = AtomicFile::create(path).unwrap();
                    file.write_all(&[writer; 1000]).unwrap();
                    file.commit().unwrap();
                    let bytes = std::fs::read(path).unwrap();
                    assert!(bytes.len() == 1000 && bytes.iter().all(|&byte| byte == bytes[0]));
                }
            });
        }
    });
    assert_eq!(folder.names(), ["x"]);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_stay_links_and_permissions_stay() {
        let folder = Folder::new();
        let path = folder.write("real", "before");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let link = folder.join("link");
        symlink("real", &link).unwrap();
        let mut file = AtomicFile::create(&link).unwrap();
        file.write_all(b"after").unwrap();
        file.commit().unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"after");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(folder.names(), ["link", "real"]);
    }

    #[test]
    fn a_target_that_is_no_file_is_written_directly() {
        let mut file = AtomicFile::create("/dev/null").unwrap();
        file.write_all(b"gone").unwrap();
        file.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
