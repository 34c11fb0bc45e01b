//! Runs the binary, and reads what it says.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bertha_kernels::Isa;
use serde_json::Value;

/// How far numbers may be from the golden ones, relatively: further where f32 products are of halves, each within 10⁻⁵.
pub fn tolerance() -> f64 {
    match Isa::from_env().unwrap().multiplies_halves() {
        true => 1e-4,
        false => 1e-5,
    }
}

/// What the binary left.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

/// The folder of golden numbers.
pub fn golden(name: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    crates.join("../../tests/golden").join(name)
}

/// The binary, with words and no input.
pub fn bertha<S: AsRef<str>>(words: &[S]) -> Ran {
    bertha_reads(words, b"")
}

/// The binary, with words and standard input.
pub fn bertha_reads<S: AsRef<str>>(words: &[S], stdin: &[u8]) -> Ran {
    run(command(words), stdin)
}

/// The binary, with words, to be run.
pub fn command<S: AsRef<str>>(words: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bertha"));
    command.args(words.iter().map(AsRef::as_ref));
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command, stdin: &[u8]) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let stdin = stdin.to_vec();
    // Fails where the binary did not want it all.
    let writer = std::thread::spawn(move || drop(to.write_all(&stdin)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Ran {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// The lines of JSON of a run that succeeded without a word on standard error.
    #[track_caller]
    pub fn lines(self) -> Vec<Value> {
        assert_eq!(self.err, "");
        self.lines_beside_warnings()
    }

    /// The lines of JSON of a run that succeeded.
    #[track_caller]
    pub fn lines_beside_warnings(self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        let out = String::from_utf8(self.out).unwrap();
        let parse = |line| serde_json::from_str(line).unwrap();
        out.lines().map(parse).collect()
    }

    /// Checks that the run failed with this code, nothing on standard output, and one line of error that
    /// says all of `parts`.
    #[track_caller]
    pub fn refused(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(String::from_utf8_lossy(&self.out), "");
        let errors: Vec<&str> = self
            .err
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{}", self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for part in parts {
            assert!(
                errors[0].contains(part),
                "\"{part}\" is not in: {}",
                errors[0]
            );
        }
    }
}

/// A folder for a test's files.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The path of a file, as a word of a command line.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A copy of a golden folder, to be damaged.
    pub fn model(&self, name: &str) -> String {
        let to = self.0.path().join("model");
        copy(&golden(name), &to);
        to.to_str().unwrap().to_owned()
    }

    /// The names of the files there are.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// Fails unless the two are the same but for numbers that differ in the fifth digit.
#[track_caller]
pub fn assert_same(found: &Value, expected: &Value, at: &str) {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(
                found.len(),
                expected.len(),
                "{at}: {found:?} for {expected:?}"
            );
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                assert_same(found, expected, &format!("{at}[{i}]"));
            }
        }
        (Value::Object(found), Value::Object(expected)) => {
            let mut names: Vec<_> = found.keys().chain(expected.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned();
                let (found, expected) = (
                    of(found).unwrap_or_default(),
                    of(expected).unwrap_or_default(),
                );
                assert_same(&found, &expected, &format!("{at}.{name}"));
            }
        }
        (Value::Number(found), Value::Number(expected)) if expected.is_f64() => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let close = (found - expected).abs() <= tolerance() * expected.abs().max(1.0);
            assert!(close, "{at}: {found} for {expected}");
        }
        _ => assert_eq!(found, expected, "{at}"),
    }
}
