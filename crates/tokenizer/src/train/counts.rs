//! Words and how often each occurs: all that training keeps of a corpus.

use std::io::Read;
use std::path::Path;

use super::error::TrainError;
use super::hash::Map;
use super::parallel;
use super::text::Splitting;

/// How much of a file is read at a time.
const BLOCK: usize = 4 << 20;
/// A longer line without a space is no text.
const LONGEST: usize = 64 << 20;

/// Words in the order of their code points, each with the number of times it occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordCounts {
    words: Vec<(Box<str>, u64)>,
}

impl WordCounts {
    /// Number of distinct words.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Number of words, each as often as it occurs.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.words
            .iter()
            .fold(0, |total, (_, count)| total.saturating_add(*count))
    }

    /// The words with their counts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.words.iter().map(|(word, count)| (&**word, *count))
    }

    fn of(counts: Map<Box<str>, u64>) -> Self {
        let mut words: Vec<_> = counts
            .into_iter()
            .filter(|(word, count)| !word.is_empty() && *count > 0)
            .collect();
        parallel::sort_by(&mut words, |a, b| a.0.cmp(&b.0));
        Self { words }
    }
}

/// Counts of equal words add up.
impl<S: AsRef<str>> FromIterator<(S, u64)> for WordCounts {
    fn from_iter<I: IntoIterator<Item = (S, u64)>>(iter: I) -> Self {
        let mut counts = Map::default();
        for (word, count) in iter {
            add(&mut counts, word.as_ref(), count);
        }
        Self::of(counts)
    }
}

#[inline]
fn add(counts: &mut Map<Box<str>, u64>, word: &str, count: u64) {
    match counts.get_mut(word) {
        Some(known) => *known = known.saturating_add(count),
        None => drop(counts.insert(word.into(), count)),
    }
}

/// Counts the words of texts, a piece of the corpus at a time.
///
/// Memory is bounded by the distinct words, not by the length of the corpus: texts are let go as soon as they are
/// counted. Every thread has counts of its own until the end, so that frequent words are held once for each thread.
/// With the feature `rayon` the threads are those of the pool that the methods are called in. Counts do not depend on
/// them.
#[derive(Debug)]
pub struct WordCounter {
    splitting: Splitting,
    shards: Vec<Map<Box<str>, u64>>,
    texts: u64,
    bytes: u64,
}

impl WordCounter {
    pub(super) fn new(splitting: Splitting) -> Self {
        Self {
            splitting,
            shards: Vec::new(),
            texts: 0,
            bytes: 0,
        }
    }

    /// Counts the words of texts.
    pub fn add_texts<S: AsRef<str> + Sync>(&mut self, texts: &[S]) {
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        self.texts += texts.len() as u64;
        self.bytes += bytes as u64;
        // Small work is not worth the threads.
        let groups = parallel::threads().min(bytes / (1 << 14) + 1);
        if self.shards.len() < groups {
            self.shards.resize_with(groups, Map::default);
        }
        let mut rest = texts;
        let mut work = Vec::with_capacity(groups);
        for (shard, left) in self.shards.iter_mut().zip((1..=groups).rev()) {
            let all: usize = rest.iter().map(|text| text.as_ref().len()).sum();
            let mut taken = 0;
            let end = rest
                .iter()
                .position(|text| {
                    let full = left > 1 && taken >= all / left;
                    taken += text.as_ref().len();
                    full
                })
                .unwrap_or(rest.len());
            let (group, further) = rest.split_at(end);
            rest = further;
            work.push((shard, group));
        }
        let splitting = self.splitting;
        parallel::map(work, |(shard, group)| {
            for text in group {
                splitting.words(text.as_ref(), &mut |word| add(shard, word, 1));
            }
        });
    }

    /// Counts the words of any number of texts, in pieces of a few megabytes.
    pub fn add_iter<S: AsRef<str> + Sync>(&mut self, texts: impl IntoIterator<Item = S>) {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        for text in texts {
            bytes += text.as_ref().len() + 1;
            piece.push(text);
            if bytes >= BLOCK {
                self.add_texts(&piece);
                piece.clear();
                bytes = 0;
            }
        }
        self.add_texts(&piece);
    }

    /// Counts the words of a file of UTF-8 with a text a line, read in blocks. Lines end with `\n` or `\r\n`; a
    /// byte-order mark is skipped.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8, or has 64 MiB without a space or the end of a line. What was
    /// counted before stays counted.
    pub fn add_file(&mut self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        let file = path.as_ref().display().to_string();
        match std::fs::File::open(path) {
            Ok(reader) => self.add_reader(reader, &file),
            Err(source) => Err(TrainError::Read { file, source }),
        }
    }

    /// Counts the words of what a reader gives, as [`add_file`](Self::add_file) does; `name` is for errors.
    ///
    /// # Errors
    /// As [`add_file`](Self::add_file).
    pub fn add_reader(&mut self, mut reader: impl Read, name: &str) -> Result<(), TrainError> {
        let mut buffer: Vec<u8> = Vec::new();
        let (mut line, mut first) = (1, true);
        loop {
            let wanted = BLOCK as u64;
            let read = reader.by_ref().take(wanted).read_to_end(&mut buffer);
            let read = read.map_err(|source| TrainError::Read {
                file: name.to_owned(),
                source,
            })?;
            let end = read < BLOCK;
            if std::mem::take(&mut first) && buffer.starts_with(b"\xef\xbb\xbf") {
                buffer.drain(..3);
            }
            let cut = match end {
                true => buffer.len(),
                false => {
                    let newline = buffer.iter().rposition(|&byte| byte == b'\n');
                    // One endless line is cut before a space, which begins a word in every way of cutting.
                    let space = || buffer.iter().rposition(|&byte| byte == b' ');
                    match newline.map(|at| at + 1).or_else(space) {
                        Some(at) if at > 0 => at,
                        _ if buffer.len() > LONGEST => {
                            return Err(TrainError::LineTooLong {
                                file: name.to_owned(),
                                line,
                                limit: LONGEST,
                            });
                        }
                        _ => continue,
                    }
                }
            };
            let text = std::str::from_utf8(&buffer[..cut]).map_err(|error| {
                let valid = &buffer[..error.valid_up_to()];
                let start = valid.iter().rposition(|&byte| byte == b'\n');
                TrainError::NotUtf8 {
                    file: name.to_owned(),
                    line: line + newlines(valid),
                    column: valid.len() - start.map_or(0, |at| at + 1) + 1,
                    byte: buffer[valid.len()],
                }
            })?;
            let lines: Vec<&str> = text.lines().collect();
            self.add_texts(&lines);
            line += newlines(&buffer[..cut]);
            buffer.drain(..cut);
            if end {
                return Ok(());
            }
        }
    }

    /// Number of texts so far.
    #[must_use]
    pub fn texts(&self) -> u64 {
        self.texts
    }

    /// Bytes of the texts so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The counts.
    #[must_use]
    pub fn finish(self) -> WordCounts {
        let mut shards = self.shards.into_iter();
        let mut all = shards.next().unwrap_or_default();
        for shard in shards {
            for (word, count) in shard {
                let known = all.entry(word).or_default();
                *known = known.saturating_add(count);
            }
        }
        WordCounts::of(all)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter() -> WordCounter {
        WordCounter::new(Splitting::Bert { lowercase: true })
    }

    fn counted(counts: &WordCounts) -> Vec<(&str, u64)> {
        counts.iter().collect()
    }

    #[test]
    fn words_are_counted_whatever_the_way_in() {
        let expected = [("a", 3), ("b", 2), ("c", 1)];
        let mut texts = counter();
        texts.add_texts(&["a b a", "", "c A"]);
        texts.add_texts(&["b"]);
        assert_eq!((texts.texts(), texts.bytes()), (4, 9));
        assert_eq!(counted(&texts.finish()), expected);
        let mut iter = counter();
        iter.add_iter(["a b a c", "A b"].map(str::to_owned));
        assert_eq!(counted(&iter.finish()), expected);
        let mut reader = counter();
        let bytes = b"\xef\xbb\xbfa b\r\na c\n\nA b";
        reader.add_reader(&bytes[..], "memory").unwrap();
        assert_eq!(reader.texts(), 4);
        assert_eq!(counted(&reader.finish()), expected);
        let given: WordCounts = [("b", 1), ("a", 3), ("c", 1), ("b", 1), ("z", 0), ("", 5)]
            .into_iter()
            .collect();
        assert_eq!(counted(&given), expected);
        assert_eq!((given.len(), given.total()), (3, 6));
    }

    #[test]
    fn blocks_do_not_show() {
        let line = "the old river went to the sea, and \u{e9}l\u{e9}phants came ";
        let lines = BLOCK * 2 / line.len();
        for end in ["\n", "\r\n", ""] {
            let text = [line, end].concat().repeat(lines);
            let mut whole = counter();
            whole.add_texts(&[&text]);
            let mut blocks = counter();
            blocks.add_reader(text.as_bytes(), "memory").unwrap();
            assert_eq!(blocks.finish(), whole.finish(), "{end:?}");
        }
    }

    #[test]
    fn what_is_no_text_is_named() {
        let read = |bytes: &[u8]| counter().add_reader(bytes, "corpus.txt").unwrap_err();
        let error = read(b"fine\nca\xe9 \n").to_string();
        assert_eq!(
            error,
            "corpus.txt, line 2 is not valid UTF-8 (byte 0xe9 at column 3): convert the file to UTF-8"
        );
        let mut late = "x y\n".repeat(BLOCK / 3).into_bytes();
        late.extend(b"\xff");
        let line = BLOCK / 3 + 1;
        assert!(read(&late).to_string().contains(&format!("line {line} ")));
        assert!(read(b"cut \xe2\x82").to_string().contains("0xe2"));
        let error = counter()
            .add_reader(std::io::repeat(b'x'), "/dev/zero")
            .unwrap_err();
        assert!(matches!(error, TrainError::LineTooLong { line: 1, .. }));
        let error = counter().add_file("/no/such/file").unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    }
}
