//! A vocabulary: text to id and back, in one string and one hash table.

/// Tokens in one string, found by an open-addressing table.
#[derive(Debug, Default)]
pub(crate) struct Vocab {
    /// All tokens end to end.
    pool: String,
    /// Where each token ends in `pool`.
    ends: Vec<u32>,
    /// The id of each token.
    ids: Vec<u32>,
    /// (id, token), sorted by id; of tokens that share an id only the last. Empty if the ids are 0, 1, 2, ...
    by_id: Vec<(u32, u32)>,
    /// Ids of short tokens, entries of the others.
    short: ShortTable,
    long: Table,
}

impl Vocab {
    /// Builds a vocabulary of (token, id). Where a token comes twice, the last id holds.
    pub(crate) fn new<S: AsRef<str>>(tokens: &[(S, u32)]) -> Self {
        let bytes = tokens.iter().map(|(text, _)| text.as_ref().len()).sum();
        let is_short = |(text, _): &&(S, u32)| pack(text.as_ref().as_bytes()).is_some();
        let short = tokens.iter().filter(is_short).count();
        let mut vocab = Self {
            pool: String::with_capacity(bytes),
            ends: Vec::with_capacity(tokens.len()),
            ids: Vec::with_capacity(tokens.len()),
            by_id: Vec::new(),
            long: Table::with_room(tokens.len() - short),
            short: ShortTable::with_room(short),
        };
        for (text, id) in tokens {
            let text = text.as_ref();
            // As long as ids may change, entries stand in the table of short tokens, too.
            let known = match pack(text.as_bytes()) {
                Some(packed) => vocab.short.find(packed),
                None => vocab.long_entry(text.as_bytes()),
            };
            if let Some(same) = known {
                vocab.ids[same as usize] = *id;
                continue;
            }
            let entry = vocab.ids.len() as u32;
            if !vocab.short.insert(text.as_bytes(), entry) {
                vocab.long.insert(hash(text.as_bytes()), entry);
            }
            vocab.pool.push_str(text);
            vocab.ends.push(vocab.pool.len() as u32);
            vocab.ids.push(*id);
        }
        vocab.short.map(|entry| vocab.ids[entry as usize]);
        if vocab.ids.iter().zip(0..).any(|(&id, entry)| id != entry) {
            vocab.by_id.extend(vocab.ids.iter().copied().zip(0..));
            // Descending entries within an id, so that the last of them stays.
            vocab
                .by_id
                .sort_unstable_by_key(|&(id, entry)| (id, std::cmp::Reverse(entry)));
            vocab.by_id.dedup_by_key(|pair| pair.0);
        }
        vocab
    }

    /// Number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The largest id, if there is any token.
    pub(crate) fn largest_id(&self) -> Option<u32> {
        match self.by_id.last() {
            Some(pair) => Some(pair.0),
            None => (self.ids.len() as u32).checked_sub(1),
        }
    }

    /// The id of a token.
    #[inline]
    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        self.id_of(token.as_bytes())
    }

    /// The id of a token given as bytes.
    #[inline]
    pub(crate) fn id_of(&self, token: &[u8]) -> Option<u32> {
        match pack(token) {
            Some(packed) => self.short.find(packed),
            None => self.long_entry(token).map(|entry| self.ids[entry as usize]),
        }
    }

    /// The token of an id.
    pub(crate) fn token(&self, id: u32) -> Option<&str> {
        if self.by_id.is_empty() {
            return ((id as usize) < self.ids.len()).then(|| self.text(id));
        }
        let at = self.by_id.binary_search_by_key(&id, |pair| pair.0).ok()?;
        Some(self.text(self.by_id[at].1))
    }

    /// All tokens with their entries, which [`Vocab::entry_id`] turns into ids.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, &str)> {
        (0..self.ids.len() as u32).map(|entry| (entry, self.text(entry)))
    }

    /// The id of an entry.
    #[inline]
    pub(crate) fn entry_id(&self, entry: u32) -> u32 {
        self.ids[entry as usize]
    }

    #[inline]
    fn long_entry(&self, token: &[u8]) -> Option<u32> {
        self.long
            .find(hash(token), |entry| same(self.bytes(entry), token))
    }

    /// The bytes of an entry.
    #[inline]
    pub(crate) fn bytes(&self, entry: u32) -> &[u8] {
        let (start, end) = self.bounds(entry);
        &self.pool.as_bytes()[start..end]
    }

    fn text(&self, entry: u32) -> &str {
        let (start, end) = self.bounds(entry);
        &self.pool[start..end]
    }

    #[inline]
    fn bounds(&self, entry: u32) -> (usize, usize) {
        let entry = entry as usize;
        let start = if entry == 0 {
            0
        } else {
            self.ends[entry - 1] as usize
        };
        (start, self.ends[entry] as usize)
    }
}

/// Open addressing with linear probing. A slot holds the high half of the hash above the entry plus one; 0 is empty.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<u64>,
    shift: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_room(0)
    }
}

impl Table {
    /// An empty table for up to `entries` entries, at most half full.
    pub(crate) fn with_room(entries: usize) -> Self {
        let bits = (entries.max(1) * 2).next_power_of_two().trailing_zeros();
        Self {
            slots: vec![0; 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    /// Adds an entry; the table must have room for it.
    pub(crate) fn insert(&mut self, hash: u64, entry: u32) {
        let mask = self.slots.len() - 1;
        let mut at = (hash >> self.shift) as usize;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = u64::from(tag(hash)) << 32 | u64::from(entry + 1);
    }

    /// The first entry with this hash that `same` accepts.
    #[inline]
    pub(crate) fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let tag = tag(hash);
        let mut at = (hash >> self.shift) as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag {
                let entry = slot as u32 - 1;
                if same(entry) {
                    return Some(entry);
                }
            }
            at = (at + 1) & mask;
        }
    }
}

/// Texts of at most [`SHORT`] bytes and what they stand for, side by side: to look one up is one visit to memory.
/// Texts of other lengths are not in it.
#[derive(Debug)]
pub(crate) struct ShortTable {
    /// Packed text and value; packed text is never 0.
    slots: Vec<(u64, u32)>,
    shift: u32,
}

/// The longest text that packs into eight bytes beside its length.
const SHORT: usize = 7;

impl Default for ShortTable {
    fn default() -> Self {
        Self::with_room(0)
    }
}

impl ShortTable {
    /// An empty table for up to `entries` texts, at most half full.
    pub(crate) fn with_room(entries: usize) -> Self {
        let bits = (entries.max(1) * 2).next_power_of_two().trailing_zeros();
        Self {
            slots: vec![(0, 0); 1 << bits],
            shift: u64::BITS - bits,
        }
    }

    /// Adds a text that is not in the table, if it is short, which it returns; the table must have room for it.
    pub(crate) fn insert(&mut self, text: &[u8], value: u32) -> bool {
        let Some(packed) = pack(text) else {
            return false;
        };
        let mask = self.slots.len() - 1;
        let mut at = (mix(packed) >> self.shift) as usize;
        while self.slots[at].0 != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (packed, value);
        true
    }

    /// Replaces every value.
    fn map(&mut self, value: impl Fn(u32) -> u32) {
        for slot in self.slots.iter_mut().filter(|slot| slot.0 != 0) {
            slot.1 = value(slot.1);
        }
    }

    /// The value of a packed text.
    #[inline]
    pub(crate) fn find(&self, packed: u64) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = (mix(packed) >> self.shift) as usize & mask;
        loop {
            match self.slots[at] {
                (text, value) if text == packed => return Some(value),
                (0, _) => return None,
                _ => at = (at + 1) & mask,
            }
        }
    }
}

/// A short text and its length in one number that is not 0.
#[inline]
pub(crate) fn pack(text: &[u8]) -> Option<u64> {
    let len = text.len();
    let byte = |at: usize| u64::from(text[at]) << (8 * at);
    let packed = match len {
        // The middle may be the first or the last over again.
        1..=3 => byte(0) | byte(len / 2) | byte(len - 1),
        4..=SHORT => {
            let (first, last) = (text.first_chunk::<4>()?, text.last_chunk::<4>()?);
            u64::from(u32::from_le_bytes(*first))
                | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4))
        }
        _ => return None,
    };
    Some(packed | (len as u64) << 56)
}

/// Whether two short texts are equal; for those, a call of `memcmp` takes longer than comparing.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let equal = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*a) == u64::from_le_bytes(*b);
    a.iter().zip(b).all(equal) && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

/// The low half of the hash: the high bits already chose the slot.
#[inline]
fn tag(hash: u64) -> u32 {
    hash as u32
}

const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A fast hash of a short text whose high bits are well mixed. It guards against accidents, not against attackers:
/// who chooses the vocabulary has other ways to be slow.
#[inline]
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut state = (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        state = mix(state ^ u64::from_le_bytes(*chunk));
    }
    let last = match *rest {
        [] => return state ^ (state >> 29),
        [a] => u64::from(a),
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b, c, d, ref more @ ..] => {
            let tail = more
                .iter()
                .fold(0, |tail, &byte| tail << 8 | u64::from(byte));
            u64::from(u32::from_le_bytes([a, b, c, d])) | tail << 32
        }
    };
    mix(state ^ last)
}

#[inline]
pub(crate) fn mix(state: u64) -> u64 {
    let product = u128::from(state ^ MULTIPLIER) * 0xD6E8_FEB8_6659_FD93;
    (product as u64) ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_token_and_id() {
        let tokens: Vec<(String, u32)> = (0..5000).map(|n| (format!("t{}", n * 7), n)).collect();
        let vocab = Vocab::new(&tokens);
        assert_eq!(vocab.len(), 5000);
        for (text, id) in &tokens {
            assert_eq!(vocab.id(text), Some(*id));
            assert_eq!(vocab.token(*id), Some(text.as_str()));
        }
        assert_eq!(vocab.id("t1"), None);
        assert_eq!(vocab.id(""), None);
        assert_eq!(vocab.token(5000), None);
    }

    #[test]
    fn later_ids_and_later_tokens_win_and_ids_may_have_gaps() {
        let vocab = Vocab::new(&[("a", 4_000_000_000), ("b", 7), ("a", 3), ("c", 7)]);
        assert_eq!(vocab.len(), 3);
        assert_eq!(vocab.id("a"), Some(3));
        assert_eq!(vocab.token(3), Some("a"));
        assert_eq!(vocab.token(7), Some("c"));
        assert_eq!(vocab.id("b"), Some(7));
        assert_eq!(vocab.token(4_000_000_000), None);
        assert_eq!(vocab.largest_id(), Some(7));
    }

    #[test]
    fn short_texts_pack_into_what_they_are() {
        assert_eq!(pack(b""), None);
        assert_eq!(pack(b"abcdefgh"), None);
        for len in 1..=7 {
            let text = &b"abc\0efg"[..len];
            let mut bytes = [0; 8];
            bytes[..len].copy_from_slice(text);
            bytes[7] = len as u8;
            assert_eq!(pack(text), Some(u64::from_le_bytes(bytes)));
        }
        let mut table = ShortTable::with_room(3);
        for (text, value) in [("a", 1), ("a\0", 2), ("too long for it", 3), ("seven77", 4)] {
            table.insert(text.as_bytes(), value);
        }
        let find = |text: &str| table.find(pack(text.as_bytes()).unwrap());
        assert_eq!(
            ["a", "a\0", "\0", "seven77"].map(find),
            [Some(1), Some(2), None, Some(4)]
        );
    }

    #[test]
    fn equal_texts_are_equal() {
        let text = b"abcdefghijklmnopqrstu";
        for end in 0..=text.len() {
            assert!(same(&text[..end], &text.to_vec()[..end]));
            assert!(end == text.len() || !same(&text[..end], &text[..end + 1]));
            for at in 0..end {
                let mut other = text[..end].to_vec();
                other[at] ^= 0x80;
                assert!(!same(&text[..end], &other));
            }
        }
    }

    #[test]
    fn hashes_differ_by_length_and_by_every_byte() {
        let text = b"abcdefghijklmnopqrstu";
        let mut seen = std::collections::HashSet::new();
        for end in 0..=text.len() {
            assert!(seen.insert(hash(&text[..end])));
            for at in 0..end {
                let mut other = text[..end].to_vec();
                other[at] ^= 0x80;
                assert!(seen.insert(hash(&other)));
            }
        }
    }
}
