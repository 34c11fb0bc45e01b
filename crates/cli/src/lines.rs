//! Lines of UTF-8, bounded in length.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

/// A longer line is no text: another kind of file, or an endless device.
const LONGEST: usize = 64 << 20;
/// UTF-8's byte-order mark.
pub const BOM: &[u8] = b"\xef\xbb\xbf";

/// What reading a line gives.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// A line without its end.
    Text(String),
    /// What is wrong, to be read after "line N ".
    Bad(String),
    /// There is none.
    End,
}

/// The next line; `first` takes a byte-order mark away.
pub fn read(reader: &mut impl BufRead, first: bool) -> io::Result<Line> {
    let mut bytes = Vec::new();
    let most = LONGEST as u64 + 1;
    if reader.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(Line::End);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    } else if bytes.len() > LONGEST {
        let limit = LONGEST >> 20;
        return Ok(Line::Bad(format!(
            "is longer than {limit} MiB: expected a file of text, a text a line"
        )));
    }
    if first && bytes.starts_with(BOM) {
        bytes.drain(..BOM.len());
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Line::Text(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            Line::Bad(not_utf8(error.as_bytes()[at], at))
        }
    })
}

/// What is wrong with a line whose byte `byte` at `at` is no UTF-8.
pub fn not_utf8(byte: u8, at: usize) -> String {
    format!(
        "is not valid UTF-8 (byte 0x{byte:02x} at column {}): convert the file to UTF-8",
        at + 1
    )
}

/// The lines of a file, unless it is so large that counting them takes a while.
pub fn count(path: &Path) -> Option<usize> {
    const LARGEST: u64 = 1 << 30;
    let mut file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > LARGEST {
        return None;
    }
    let mut buffer = vec![0; 1 << 18];
    let (mut lines, mut last) = (0, b'\n');
    loop {
        match file.read(&mut buffer).ok()? {
            0 => return Some(lines + usize::from(last != b'\n')),
            read => {
                lines += buffer[..read].iter().filter(|&&byte| byte == b'\n').count();
                last = buffer[read - 1];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<Line> {
        let mut found = Vec::new();
        loop {
            match read(&mut bytes, found.is_empty()).unwrap() {
                Line::End => return found,
                line => found.push(line),
            }
        }
    }

    fn texts(lines: &[&str]) -> Vec<Line> {
        lines.iter().map(|&line| Line::Text(line.into())).collect()
    }

    #[test]
    fn lines_without_their_ends() {
        assert_eq!(all(b"a\nb\r\n\nlast"), texts(&["a", "b", "", "last"]));
        assert_eq!(all(b"a\n"), texts(&["a"]));
        assert_eq!(all(b"\n"), texts(&[""]));
        assert_eq!(all(b""), []);
        assert_eq!(
            all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb"),
            texts(&["a", "\u{feff}b"])
        );
        assert_eq!(all(b"a\rb\n"), texts(&["a\rb"]));
    }

    #[test]
    fn bytes_that_are_no_text() {
        let found = all(b"fine\nca\xe9 \nfine");
        let Line::Bad(problem) = &found[1] else {
            panic!("{found:?}");
        };
        assert!(problem.contains("0xe9 at column 3"), "{problem}");
        assert_eq!(found[2], Line::Text("fine".into()));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let Line::Bad(problem) = read(&mut endless, true).unwrap() else {
            panic!("an endless line is no text");
        };
        assert!(problem.contains("64 MiB"), "{problem}");
    }

    #[test]
    fn lines_are_counted_with_or_without_a_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        for (content, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\n\nb", 3), ("\n", 1)] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(count(&path), Some(lines), "{content:?}");
        }
    }
}
