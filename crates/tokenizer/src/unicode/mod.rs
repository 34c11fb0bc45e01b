//! What the tokenizers ask about a character: flags, combining class, decompositions.
//!
//! The tables hold the Unicode facts of the versions that Hugging Face's `tokenizers` 0.22 was built with (categories
//! of about Unicode 8, normalization of Unicode 9.0), because vocabularies are used with that library: a newer
//! Unicode would split or drop newer characters differently. `tests/unicode_tables.rs` makes them.
//!
//! Decomposition and canonical ordering: <https://www.unicode.org/reports/tr15/>.

// Laid out by its generator.
#[rustfmt::skip]
mod tables;

/// Cc, Cf or Co except tab, newline and return; also U+0000 and U+FFFD: what BERT's cleaning deletes.
pub(crate) const CONTROL: u8 = 1;
/// White_Space.
pub(crate) const SPACE: u8 = 2;
/// Mn: what stripping accents deletes.
pub(crate) const MARK: u8 = 4;
/// ASCII punctuation and symbols, or P*: what BERT's pre-tokenizer isolates.
pub(crate) const PUNCTUATION: u8 = 8;
/// The blocks that BERT's normalizer surrounds with spaces.
pub(crate) const CJK: u8 = 16;
/// `\w` of regular expressions.
pub(crate) const WORD: u8 = 32;
/// A canonical combining class other than 0.
pub(crate) const NON_STARTER: u8 = 64;
/// Has a canonical decomposition in the table (Hangul syllables, which are computed, do not set it).
pub(crate) const DECOMPOSES: u8 = 128;

/// `\p{L}` of regular expressions.
pub(crate) const LETTER: u8 = 1;
/// `\p{N}` of regular expressions.
pub(crate) const NUMBER: u8 = 2;
/// May compose with a character before it.
pub(crate) const COMPOSES: u8 = 4;

const BLOCK_BITS: u32 = 7;

/// The flags of a character.
#[inline]
pub(crate) fn flags(c: char) -> u8 {
    let point = u32::from(c);
    let block = tables::INDEX[(point >> BLOCK_BITS) as usize];
    tables::BLOCKS[block as usize][(point & ((1 << BLOCK_BITS) - 1)) as usize]
}

/// The further flags of a character: [`LETTER`], [`NUMBER`], [`COMPOSES`].
#[inline]
pub(crate) fn kinds(c: char) -> u8 {
    let point = u32::from(c);
    let block = tables::KIND_INDEX[(point >> BLOCK_BITS) as usize];
    tables::KIND_BLOCKS[block as usize][(point & ((1 << BLOCK_BITS) - 1)) as usize]
}

/// Whether a character has any of the flags.
#[inline]
pub(crate) fn is(c: char, any: u8) -> bool {
    flags(c) & any != 0
}

/// Whether a character is a combining mark (M*).
pub(crate) fn is_combining_mark(c: char) -> bool {
    let point = u32::from(c);
    let after = tables::COMBINING.partition_point(|&(first, _)| first <= point);
    after
        .checked_sub(1)
        .is_some_and(|at| point <= tables::COMBINING[at].1)
}

/// The canonical combining class.
pub(crate) fn combining_class(c: char) -> u8 {
    let point = u32::from(c);
    let after = tables::CLASSES.partition_point(|&(first, _, _)| first <= point);
    match after.checked_sub(1).map(|at| tables::CLASSES[at]) {
        Some((_, last, class)) if point <= last => class,
        _ => 0,
    }
}

/// Constants of Unicode's chapter 3.12, "Conjoining Jamo Behavior".
mod hangul {
    pub(super) const SYLLABLE: u32 = 0xAC00;
    pub(super) const LEADING: u32 = 0x1100;
    pub(super) const VOWEL: u32 = 0x1161;
    pub(super) const TRAILING: u32 = 0x11A7;
    pub(super) const VOWELS: u32 = 21;
    pub(super) const TRAILINGS: u32 = 28;
    pub(super) const LEADINGS: u32 = 19;
    pub(super) const SYLLABLES: u32 = LEADINGS * VOWELS * TRAILINGS;
}

/// Calls `emit` with the full canonical decomposition of a character, or with the character itself.
#[inline]
pub(crate) fn decompose_canonical(c: char, emit: impl FnMut(char)) {
    decompose(c, false, emit);
}

/// Calls `emit` with the full compatibility decomposition of a character, or with the character itself.
pub(crate) fn decompose_compatible(c: char, emit: impl FnMut(char)) {
    decompose(c, true, emit);
}

#[inline]
fn decompose(c: char, compatible: bool, mut emit: impl FnMut(char)) {
    if c.is_ascii() {
        return emit(c);
    }
    let syllable = u32::from(c).wrapping_sub(hangul::SYLLABLE);
    if syllable < hangul::SYLLABLES {
        let trailing = syllable % hangul::TRAILINGS;
        let vowel = syllable / hangul::TRAILINGS % hangul::VOWELS;
        let leading = syllable / (hangul::TRAILINGS * hangul::VOWELS);
        let mut jamo = |point: u32| {
            if let Some(c) = char::from_u32(point) {
                emit(c);
            }
        };
        jamo(hangul::LEADING + leading);
        jamo(hangul::VOWEL + vowel);
        if trailing != 0 {
            jamo(hangul::TRAILING + trailing);
        }
        return;
    }
    if !compatible && u32::from(c) < LATIN {
        // Accented letters of Europe, which are common.
        return match CANONICAL_OF_LATIN[u32::from(c) as usize] {
            0 => emit(c),
            after => tables::CANONICAL[after as usize - 1]
                .1
                .chars()
                .for_each(emit),
        };
    }
    let found = compatible
        .then(|| look_up(&tables::COMPATIBLE, c))
        .flatten()
        .or_else(|| {
            is(c, DECOMPOSES)
                .then(|| look_up(&tables::CANONICAL, c))
                .flatten()
        });
    match found {
        Some(text) => text.chars().for_each(emit),
        None => emit(c),
    }
}

/// The characters below have a direct table.
const LATIN: u32 = 0x400;

/// One more than the place in the table of canonical decompositions, or 0.
static CANONICAL_OF_LATIN: [u16; LATIN as usize] = canonical_of_latin();

const fn canonical_of_latin() -> [u16; LATIN as usize] {
    let mut places = [0; LATIN as usize];
    let mut at = 0;
    while at < tables::CANONICAL.len() {
        let point = tables::CANONICAL[at].0 as u32;
        at += 1;
        if point < LATIN {
            places[point as usize] = at as u16;
        }
    }
    places
}

/// The letter that is left of a letter of Europe without its marks, which is the letter itself if it has none; `None`
/// for characters beyond U+02FF.
#[inline]
pub(crate) fn without_marks(c: char) -> Option<char> {
    BASES.get(u32::from(c) as usize).copied()
}

/// No character below is a mark.
const BASES_END: usize = 0x300;

static BASES: [char; BASES_END] = bases();

const fn bases() -> [char; BASES_END] {
    let mut bases = ['\0'; BASES_END];
    let mut point = 0;
    while point < BASES_END {
        let after = CANONICAL_OF_LATIN[point] as usize;
        let base = match after {
            0 => point as u32,
            // The first character of the decomposition has at most two bytes.
            _ => match tables::CANONICAL[after - 1].1.as_bytes() {
                [first @ 0..=0x7F, ..] => *first as u32,
                [first, second, ..] => (*first as u32 & 0x1F) << 6 | (*second as u32 & 0x3F),
                _ => point as u32,
            },
        };
        bases[point] = match char::from_u32(base) {
            Some(base) => base,
            None => '\0',
        };
        point += 1;
    }
    bases
}

fn look_up(table: &'static [(char, &'static str)], c: char) -> Option<&'static str> {
    let at = table.binary_search_by_key(&c, |entry| entry.0).ok()?;
    Some(table[at].1)
}

/// The primary composite of two characters, if they have one.
pub(crate) fn compose(a: char, b: char) -> Option<char> {
    let (first, second) = (u32::from(a), u32::from(b));
    let leading = first.wrapping_sub(hangul::LEADING);
    let vowel = second.wrapping_sub(hangul::VOWEL);
    if leading < hangul::LEADINGS && vowel < hangul::VOWELS {
        return char::from_u32(
            hangul::SYLLABLE + (leading * hangul::VOWELS + vowel) * hangul::TRAILINGS,
        );
    }
    let syllable = first.wrapping_sub(hangul::SYLLABLE);
    let trailing = second.wrapping_sub(hangul::TRAILING);
    if syllable < hangul::SYLLABLES
        && syllable % hangul::TRAILINGS == 0
        && (1..hangul::TRAILINGS).contains(&trailing)
    {
        return char::from_u32(first + trailing);
    }
    let at = tables::COMPOSITES
        .binary_search_by_key(&(a, b), |&(x, y, _)| (x, y))
        .ok()?;
    Some(tables::COMPOSITES[at].2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_decompositions_without_marks() {
        for c in (0..0x400).filter_map(char::from_u32) {
            let mut parts = Vec::new();
            decompose_canonical(c, |part| parts.push(part));
            let marks = parts[1..]
                .iter()
                .all(|&part| is(part, MARK) && is(part, NON_STARTER));
            match without_marks(c) {
                Some(base) => assert!(
                    parts[0] == base && marks && !is(base, MARK | NON_STARTER),
                    "{c:?}"
                ),
                None => assert!(u32::from(c) >= 0x300),
            }
        }
    }
}
