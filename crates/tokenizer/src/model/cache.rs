//! Words that were tokenized lately and the tokens that they became, so that a word that comes again is not cut again.
//!
//! The table has a fixed number of slots, one for each hash: a newer word takes an older one's place. A slot is one
//! cache line, and neither a hit nor a miss allocates. What is found depends on which words came before, but what
//! a word becomes does not: the table holds results of the model and nothing else.

use super::Piece;
use super::vocab::mix;

/// The longest word that is kept, in bytes.
const LONGEST: usize = 24;
/// The most tokens that a word is kept with.
const PIECES: usize = 6;
/// Slots in the beginning, so that a tokenizer for a sentence stays small, and at the end.
const FIRST_BITS: u32 = 8;
const LAST_BITS: u32 = 14;

/// A word and its tokens.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Slot {
    /// The word's bytes, zeros behind them.
    word: [u64; LONGEST / 8],
    ids: [u32; PIECES],
    /// Where each token begins and ends in the word.
    bounds: [(u8, u8); PIECES],
    /// Bytes of the word; 0 if the slot is empty.
    len: u8,
    count: u8,
}

const EMPTY: Slot = Slot {
    word: [0; LONGEST / 8],
    ids: [0; PIECES],
    bounds: [(0, 0); PIECES],
    len: 0,
    count: 0,
};

/// A word as it is kept, and the slot that is its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    word: [u64; LONGEST / 8],
    len: u8,
    hash: u64,
}

impl Key {
    /// The key of a word; `None` if it is too long to be kept.
    #[inline]
    pub(crate) fn of(word: &[u8]) -> Option<Self> {
        if word.is_empty() || word.len() > LONGEST {
            return None;
        }
        let (chunks, rest) = word.as_chunks::<8>();
        let mut words = [0; LONGEST / 8];
        for (to, chunk) in words.iter_mut().zip(chunks) {
            *to = u64::from_le_bytes(*chunk);
        }
        if !rest.is_empty() {
            words[chunks.len()] = tail(rest);
        }
        let [a, b, c] = words;
        let len = word.len() as u8;
        let hash = match word.len() {
            ..=8 => mix(a ^ u64::from(len) << 60),
            _ => mix(mix(a ^ u64::from(len)) ^ b ^ c.rotate_left(29)),
        };
        Some(Self {
            word: words,
            len,
            hash,
        })
    }
}

/// One to seven bytes as a number, zeros above.
#[inline]
fn tail(rest: &[u8]) -> u64 {
    let len = rest.len();
    if let (Some(first), Some(last)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        let last = u64::from(u32::from_le_bytes(*last));
        return u64::from(u32::from_le_bytes(*first)) | last << (8 * (len - 4));
    }
    // The middle may be the first or the last over again.
    let byte = |at: usize| u64::from(rest[at]) << (8 * at);
    byte(0) | byte(len / 2) | byte(len - 1)
}

/// The words that were seen lately. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Cache {
    slots: Vec<Slot>,
    /// Words put in since the table has its size.
    filled: usize,
}

impl Cache {
    /// The tokens of a word, if they are known: how many, their ids, and where they begin and end in the word.
    #[inline]
    pub(crate) fn find(&self, key: &Key) -> Option<impl Iterator<Item = Piece> + '_> {
        let slot = self.slots.get(self.slot(key))?;
        if slot.len != key.len || slot.word != key.word {
            return None;
        }
        let pieces = slot.ids.iter().zip(&slot.bounds).take(slot.count as usize);
        Some(pieces.map(|(&id, &(start, end))| Piece {
            id,
            start: u32::from(start),
            end: u32::from(end),
        }))
    }

    /// Keeps the tokens of a word, if they are few.
    pub(crate) fn insert(&mut self, key: &Key, pieces: &[Piece]) {
        if pieces.len() > PIECES {
            return;
        }
        let mut slot = Slot {
            word: key.word,
            len: key.len,
            count: pieces.len() as u8,
            ..EMPTY
        };
        for (at, &Piece { id, start, end }) in pieces.iter().enumerate() {
            // A model with prefixes may say that a token ends beyond the word.
            let (Ok(start), Ok(end)) = (u8::try_from(start), u8::try_from(end)) else {
                return;
            };
            slot.ids[at] = id;
            slot.bounds[at] = (start, end);
        }
        if self.filled >= self.slots.len() && self.slots.len() < 1 << LAST_BITS {
            let slots = (self.slots.len() * 8).clamp(1 << FIRST_BITS, 1 << LAST_BITS);
            self.slots = vec![EMPTY; slots];
            self.filled = 0;
        }
        self.filled += 1;
        let at = self.slot(key);
        self.slots[at] = slot;
    }

    /// The slot of a key; the number of slots is a power of two, or 0.
    #[inline]
    fn slot(&self, key: &Key) -> usize {
        (key.hash >> 32) as usize & self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(id: u32, start: u32, end: u32) -> Piece {
        Piece { id, start, end }
    }

    fn find(cache: &Cache, word: &[u8]) -> Option<Vec<Piece>> {
        cache.find(&Key::of(word)?).map(Iterator::collect)
    }

    #[test]
    fn a_slot_is_a_cache_line() {
        assert_eq!(std::mem::size_of::<Slot>(), 64);
    }

    #[test]
    fn keys_differ_by_length_and_by_every_byte() {
        let text = b"abcdefghijklmnopqrstuvwxyz";
        assert!(Key::of(b"").is_none() && Key::of(&text[..25]).is_none());
        let mut seen = std::collections::HashSet::new();
        for len in 1..=LONGEST {
            let key = |word: &[u8]| Key::of(word).map(|key| (key.word, key.len)).unwrap();
            assert!(seen.insert(key(&text[..len])));
            for at in 0..len {
                let mut other = text[..len].to_vec();
                other[at] = 0;
                assert!(seen.insert(key(&other)), "{len} {at}");
            }
            let mut bytes = [0; LONGEST];
            bytes[..len].copy_from_slice(&text[..len]);
            let (words, _) = bytes.as_chunks::<8>();
            let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            assert_eq!(key(&text[..len]).0[..], words);
        }
    }

    #[test]
    fn gives_back_what_was_put_in_or_nothing() {
        let mut cache = Cache::default();
        assert_eq!(find(&cache, b"a"), None);
        let pieces = |n: u32| -> Vec<Piece> {
            (0..n % 8)
                .map(|at| piece(n + at, at, at + 1 + n % 3))
                .collect()
        };
        let mut found = 0;
        for n in 0..100_000_u32 {
            let word = format!("word{n}");
            cache.insert(&Key::of(word.as_bytes()).unwrap(), &pieces(n));
            let now = find(&cache, word.as_bytes());
            assert_eq!(now, (n % 8 <= PIECES as u32).then(|| pieces(n)), "{n}");
            let before = n / 2;
            if let Some(kept) = find(&cache, format!("word{before}").as_bytes()) {
                assert_eq!(kept, pieces(before));
                found += 1;
            }
        }
        assert!(found > 1000);
        assert_eq!(cache.slots.len(), 1 << LAST_BITS);
    }

    #[test]
    fn tokens_beyond_what_a_slot_can_say_are_not_kept() {
        let mut cache = Cache::default();
        cache.insert(&Key::of(b"a").unwrap(), &[piece(1, 0, 300)]);
        assert_eq!(find(&cache, b"a"), None);
    }
}
