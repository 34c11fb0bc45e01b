//! Random text that goes where tokenizers go wrong, and random options.

use bertha_tokenizer::{Direction, EncodeOptions, Truncation, TruncationStrategy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::recipes::{CASED, UNCASED};

/// Every character with the property White_Space.
pub const WHITE_SPACE: [char; 25] = [
    '\t', '\n', '\u{B}', '\u{C}', '\r', ' ', '\u{85}', '\u{A0}', '\u{1680}', '\u{2000}',
    '\u{2001}', '\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}',
    '\u{2009}', '\u{200A}', '\u{2028}', '\u{2029}', '\u{202F}', '\u{205F}', '\u{3000}',
];

/// Characters that are deleted, nearly deleted, or look as if they were.
const INVISIBLE: [char; 24] = [
    '\0',
    '\u{1}',
    '\u{8}',
    '\u{1B}',
    '\u{1C}',
    '\u{1F}',
    '\u{7F}',
    '\u{80}',
    '\u{9F}',
    '\u{AD}',
    '\u{600}',
    '\u{61C}',
    '\u{200B}',
    '\u{200C}',
    '\u{200D}',
    '\u{200E}',
    '\u{2060}',
    '\u{FEFF}',
    '\u{FFFD}',
    '\u{FFFE}',
    '\u{E000}',
    '\u{E0001}',
    '\u{F0000}',
    '\u{10FFFF}',
];

/// Marks of several combining classes and categories, some newer than the tables that `tokenizers` has.
const MARKS: [char; 30] = [
    '\u{300}',
    '\u{301}',
    '\u{307}',
    '\u{308}',
    '\u{323}',
    '\u{327}',
    '\u{328}',
    '\u{334}',
    '\u{338}',
    '\u{340}',
    '\u{344}',
    '\u{345}',
    '\u{34F}',
    '\u{35C}',
    '\u{5B0}',
    '\u{5BC}',
    '\u{64B}',
    '\u{651}',
    '\u{93C}',
    '\u{94D}',
    '\u{9BE}',
    '\u{E38}',
    '\u{F71}',
    '\u{F74}',
    '\u{1DC0}',
    '\u{20DD}',
    '\u{302E}',
    '\u{3099}',
    '\u{1D165}',
    '\u{1E8D0}',
];

/// Characters whose case or decomposition is out of the ordinary.
const PECULIAR: [char; 44] = [
    'İ',
    'ı',
    'ß',
    'ẞ',
    'ς',
    'Σ',
    'Ǆ',
    'ǅ',
    'ŉ',
    'ǰ',
    'ΐ',
    'ᾳ',
    'ᾼ',
    'ᾈ',
    'ﬀ',
    'ﬃ',
    'ﬆ',
    'և',
    'Ა',
    'Ꮳ',
    'ꭰ',
    '\u{2126}',
    '\u{212A}',
    '\u{212B}',
    '가',
    '각',
    '힣',
    'ᄀ',
    'ᅡ',
    'ᆨ',
    '\u{958}',
    '\u{9DC}',
    '\u{A36}',
    '\u{1109A}',
    '\u{1D15E}',
    '𐐀',
    '𞤀',
    '\u{1F71}',
    'ﷺ',
    '㍿',
    '①',
    'Ⅷ',
    'ⅷ',
    '\u{FB1D}',
];

/// Ends of the blocks that count as Chinese, and their neighbours.
const CHINESE: [char; 34] = [
    '中',
    '国',
    '\u{33FF}',
    '\u{3400}',
    '\u{4DBF}',
    '\u{4DC0}',
    '\u{4DFF}',
    '\u{4E00}',
    '\u{9FFF}',
    '\u{A000}',
    '\u{F8FF}',
    '\u{F900}',
    '\u{FA0E}',
    '\u{FAFF}',
    '\u{FB00}',
    '\u{1FFFF}',
    '\u{20000}',
    '\u{2A6DF}',
    '\u{2A6E0}',
    '\u{2A6FF}',
    '\u{2A700}',
    '\u{2B73F}',
    '\u{2B740}',
    '\u{2B81F}',
    '\u{2B820}',
    '\u{2B91F}',
    '\u{2B920}',
    '\u{2CEAF}',
    '\u{2CEB0}',
    '\u{2F7FF}',
    '\u{2F800}',
    '\u{2FA1D}',
    '\u{2FA1F}',
    '\u{2FA20}',
];

/// Punctuation of several categories, and symbols that are not punctuation.
const PUNCTUATION: &str =
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~¡¢§©«®°±·»¿×÷‐–—‘’“”„•…‰€™∞、。「」〜・！？　．｡﹏";

/// Text that some tokenizer under test has as one token, and near misses.
const WRITTEN: [&str; 35] = [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "[PAD]",
    "[mask]",
    "[Sep]",
    "[ MASK ]",
    "[MASK",
    "MASK]",
    "[[SEP]]",
    "[unused1]",
    "##ing",
    "##",
    "<ent>",
    "<ENT>",
    "<Ent>",
    "<e",
    "<en",
    "river",
    "River",
    "rivers",
    "Größe",
    "größe",
    "GROSSE",
    "groß\u{308}e",
    "New York",
    "new york",
    "New\u{a0}York",
    "York",
    "ing",
    "東京",
    "东京",
    "👍🏽",
    "👍",
];

const EMOJI: [&str; 10] = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇹🇷", "🇫", "1️⃣", "❤️", "🧑🏿‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺︎"];

fn string(
    characters: impl Strategy<Value = char>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = String> {
    vec(characters, count).prop_map(|characters| characters.into_iter().collect())
}

/// Letters of one script at a time, whose words so look like words.
fn letter() -> impl Strategy<Value = char> {
    prop_oneof![
        4 => prop::char::range('a', 'z'),
        2 => prop::char::range('A', 'Z'),
        2 => prop::char::range('\u{C0}', '\u{24F}'),
        1 => prop::char::range('\u{370}', '\u{3FF}'),
        1 => prop::char::range('\u{400}', '\u{52F}'),
        1 => prop::char::range('\u{5D0}', '\u{5EA}'),
        1 => prop::char::range('\u{620}', '\u{64A}'),
        1 => prop::char::range('\u{904}', '\u{963}'),
        1 => prop::char::range('\u{E01}', '\u{E4E}'),
        1 => prop::char::range('\u{1E00}', '\u{1FFF}'),
        1 => prop::char::range('\u{3041}', '\u{30FF}'),
        1 => prop::char::range('\u{AC00}', '\u{D7A3}'),
        1 => prop::char::range('\u{1100}', '\u{11FF}'),
        1 => prop::char::range('0', '9'),
    ]
}

/// A token of a vocabulary, with or without its continuation mark.
fn vocabulary_token() -> impl Strategy<Value = String> {
    let any_token = prop_oneof![select(UNCASED.clone()), select(CASED.clone())];
    (any_token, any::<bool>()).prop_map(|(token, mark)| match token.strip_prefix("##") {
        Some(rest) if !mark => rest.to_owned(),
        _ => token.to_owned(),
    })
}

/// A word of the vocabulary's own pieces.
fn spelled() -> impl Strategy<Value = String> {
    vec(vocabulary_token(), 1..5).prop_map(|tokens| {
        tokens
            .iter()
            .map(|token| token.trim_start_matches('#'))
            .collect()
    })
}

/// A word about as long as the longest that is still spelled.
fn long_word() -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => Just("a"), 1 => Just("é"), 1 => Just("e\u{301}"), 1 => Just("가"), 1 => Just("\u{200d}")];
    (vec(piece, 1..4), 90_usize..112).prop_map(|(pieces, count)| {
        pieces
            .iter()
            .cycle()
            .take(count)
            .flat_map(|piece| piece.chars())
            .collect()
    })
}

fn atom() -> impl Strategy<Value = String> {
    let one_of = |characters: &'static [char]| select(characters);
    prop_oneof![
        8 => string(letter(), 1..9),
        6 => vocabulary_token(),
        6 => spelled(),
        12 => Just(" ".to_owned()),
        4 => string(one_of(&WHITE_SPACE), 1..4),
        4 => string(one_of(&MARKS), 1..5),
        4 => string(one_of(&INVISIBLE), 1..3),
        4 => string(one_of(&PECULIAR), 1..4),
        3 => string(one_of(&CHINESE), 1..5),
        4 => string(select(PUNCTUATION.chars().collect::<Vec<_>>()), 1..4),
        5 => select(&WRITTEN[..]).prop_map(str::to_owned),
        2 => select(&EMOJI[..]).prop_map(str::to_owned),
        3 => string(any::<char>(), 1..4),
        2 => string(prop::char::range('\u{80}', '\u{3100}'), 1..5),
        1 => long_word(),
    ]
}

/// A text of up to `atoms` pieces of every kind.
pub fn text(atoms: usize) -> impl Strategy<Value = String> {
    vec(atom(), 0..atoms).prop_map(|atoms| atoms.concat())
}

/// Options without truncation.
pub fn plain_options() -> impl Strategy<Value = EncodeOptions> {
    any::<(bool, bool)>().prop_map(|(special, matched)| {
        EncodeOptions::default()
            .special_tokens(special)
            .match_special_tokens(matched)
    })
}

/// Options with a truncation that may or may not have room for text and stride.
pub fn truncating_options() -> impl Strategy<Value = EncodeOptions> {
    let strategy = select(vec![
        TruncationStrategy::LongestFirst,
        TruncationStrategy::OnlyFirst,
        TruncationStrategy::OnlySecond,
    ]);
    let direction = select(vec![Direction::Left, Direction::Right]);
    (
        plain_options(),
        5_usize..24,
        0_usize..7,
        strategy,
        direction,
        any::<bool>(),
    )
        .prop_map(
            |(options, max_length, stride, strategy, direction, overflow)| {
                let truncation = Truncation::new(max_length)
                    .stride(stride)
                    .strategy(strategy)
                    .direction(direction);
                options.truncation(Some(truncation)).overflow(overflow)
            },
        )
}
