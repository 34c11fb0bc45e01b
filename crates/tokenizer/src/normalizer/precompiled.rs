//! Sentencepiece's compiled character map: a trie of what is replaced, and the replacements.
//!
//! The format: the trie's size in bytes, then the trie, a double array in Darts' layout
//! (<https://github.com/s-yata/darts-clone>), then the replacements, each ended by a zero.

use unicode_segmentation::UnicodeSegmentation;

use super::steps::Change;

/// A compiled character map.
#[derive(Debug, Clone)]
pub(crate) struct Precompiled {
    trie: Vec<u32>,
    replacements: String,
    /// Whether no printable ASCII character by itself is replaced.
    keeps_ascii: bool,
}

impl Precompiled {
    /// Reads a map. `Err` says what is wrong.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, String> {
        let (size, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or("expected the size of a trie in the first four bytes")?;
        let size = u32::from_le_bytes(*size) as usize / 4 * 4;
        if size == 0 || size > rest.len() {
            return Err(format!(
                "the trie has {size} bytes, expected 4 to {}",
                rest.len()
            ));
        }
        let (trie, replacements) = rest.split_at(size);
        let replacements = std::str::from_utf8(replacements)
            .map_err(|error| format!("the replacements are not UTF-8: {error}"))?;
        let units = trie.as_chunks::<4>().0;
        let mut map = Self {
            trie: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.to_owned(),
            keeps_ascii: false,
        };
        map.keeps_ascii = (b' '..=b'~').all(|byte| map.find(&[byte]).is_none());
        Ok(map)
    }

    /// What replaces the shortest string of the map that `text` begins with.
    #[inline]
    fn find(&self, text: &[u8]) -> Option<&str> {
        let unit = |at: usize| self.trie.get(at).copied();
        let offset = |unit: u32| ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize;
        let mut at = offset(unit(0)?);
        for &byte in text.iter().take_while(|&&byte| byte != 0) {
            at ^= byte as usize;
            let node = unit(at)?;
            if node & (1 << 31 | 0xFF) != u32::from(byte) {
                return None;
            }
            at ^= offset(node);
            if node >> 8 & 1 == 1 {
                let start = (unit(at)? & !(1 << 31)) as usize;
                let rest = self.replacements.get(start..)?;
                return Some(rest.split('\0').next().unwrap_or(rest));
            }
        }
        None
    }

    /// Whether the map surely leaves a text as it is.
    pub(super) fn keeps(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            if self.keeps_ascii {
                let run = crate::scan::printable_ascii(&bytes[at..]);
                if run > 0 {
                    // The last character of the run may begin something with what follows it.
                    let end = at + run;
                    if end < bytes.len() && self.find(&bytes[end - 1..]).is_some() {
                        return false;
                    }
                    at = end;
                    continue;
                }
            }
            if self.find(&bytes[at..]).is_some() {
                return false;
            }
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        true
    }

    /// The characters that come out, and what each takes the place of; `None` if all stay.
    ///
    /// A grapheme cluster of less than six bytes is looked up as a whole, of which the *first* match replaces all; what
    /// is not found so is looked up by characters. So it is in `tokenizers`, whose authors say that it is strange, and
    /// that it is what sentencepiece does.
    pub(super) fn changes(&self, text: &str) -> Option<Vec<Change>> {
        let mut changes = Vec::with_capacity(text.len());
        let mut changed = false;
        for cluster in text.graphemes(true) {
            if cluster.len() < 6
                && let Some(replacement) = self.find(cluster.as_bytes())
            {
                replace(&mut changes, cluster.chars().count(), replacement);
                changed = true;
                continue;
            }
            for c in cluster.chars() {
                match self.find(c.encode_utf8(&mut [0; 4]).as_bytes()) {
                    Some(replacement) => {
                        replace(&mut changes, 1, replacement);
                        changed = true;
                    }
                    None => changes.push((c, 0)),
                }
            }
        }
        changed.then_some(changes)
    }
}

/// Puts a replacement in the place of `old` characters.
fn replace(changes: &mut Vec<Change>, old: usize, replacement: &str) {
    let start = changes.len();
    changes.extend(replacement.chars().map(|c| (c, 0)));
    let new = changes.len() - start;
    if new > old {
        for (_, change) in &mut changes[start + old..] {
            *change = 1;
        }
    } else if let Some((_, change)) = changes.last_mut() {
        *change -= (old - new) as isize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_maps_are_refused_or_harmless() {
        for bytes in [
            &b""[..],
            b"\0\0",
            b"\0\0\0\0",
            b"\x08\0\0\0abcd",
            b"\x04\0\0\0abcd\xFF",
        ] {
            assert!(Precompiled::new(bytes).is_err(), "{bytes:?}");
        }
        // A trie that leads out of itself finds nothing.
        let mut bytes = b"\x08\0\0\0".to_vec();
        bytes.extend([0xFF; 8]);
        let map = Precompiled::new(&bytes).unwrap();
        assert!(map.keeps("abc") && map.changes("é漢").is_none());
    }
}
