//! Re-creates `src/unicode/tables.rs` and compares it with the committed file.
//!
//! The facts come from where `tokenizers` takes them: `unicode_categories` (general categories of an old Unicode
//! version), `unicode-normalization-alignments` (decompositions and combining classes of Unicode 9.0) and `regex`
//! (`\w`). To rewrite the table after such a dependency moved:
//!
//! ```text
//! BERTHA_WRITE_TABLES=1 cargo test -p bertha-tokenizer --test unicode_tables
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{
    canonical_combining_class, compose, decompose_canonical, decompose_compatible,
    is_combining_mark,
};

const BLOCK: usize = 128;
const LIMIT: usize = 0x11_0000;

const CONTROL: u8 = 1;
const SPACE: u8 = 2;
const MARK: u8 = 4;
const PUNCTUATION: u8 = 8;
const CJK: u8 = 16;
const WORD: u8 = 32;
const NON_STARTER: u8 = 64;
const DECOMPOSES: u8 = 128;

const LETTER: u8 = 1;
const NUMBER: u8 = 2;
const COMPOSES: u8 = 4;

fn is_hangul_syllable(c: char) -> bool {
    ('\u{AC00}'..='\u{D7A3}').contains(&c)
}

/// The blocks that the original BERT takes for Chinese. One start is `2B920` where Unicode has `2B820`: a slip that
/// every vocabulary in use was made with.
fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

fn canonical(c: char) -> String {
    let mut out = String::new();
    decompose_canonical(c, |d| out.push(d));
    out
}

fn compatible(c: char) -> String {
    let mut out = String::new();
    decompose_compatible(c, |d| out.push(d));
    out
}

fn flags(c: char, word: &regex::Regex) -> u8 {
    let mut buffer = [0; 4];
    let mut flags = 0;
    let mut set = |condition: bool, flag: u8| {
        if condition {
            flags |= flag;
        }
    };
    set(
        c.is_other() && !matches!(c, '\t' | '\n' | '\r') || matches!(c, '\0' | '\u{FFFD}'),
        CONTROL,
    );
    set(c.is_whitespace(), SPACE);
    set(c.is_mark_nonspacing(), MARK);
    set(c.is_ascii_punctuation() || c.is_punctuation(), PUNCTUATION);
    set(is_cjk(c), CJK);
    set(word.is_match(c.encode_utf8(&mut buffer)), WORD);
    set(canonical_combining_class(c) != 0, NON_STARTER);
    set(
        !is_hangul_syllable(c) && (canonical(c) != c.to_string()),
        DECOMPOSES,
    );
    flags
}

/// What byte-level pre-tokenizers ask, and whether a character may be the second half of a pair
/// that composes.
struct Kinds {
    letter: regex::Regex,
    number: regex::Regex,
    seconds: HashSet<char>,
}

impl Kinds {
    fn new() -> Self {
        let mut seconds: HashSet<char> = all()
            .filter(|&c| !is_hangul_syllable(c) && canonical(c) != c.to_string())
            .filter_map(|c| canonical(c).chars().last())
            .collect();
        seconds.extend('\u{1161}'..='\u{1175}');
        seconds.extend('\u{11A8}'..='\u{11C2}');
        Self {
            letter: regex::Regex::new(r"^\p{L}$").expect("a valid pattern"),
            number: regex::Regex::new(r"^\p{N}$").expect("a valid pattern"),
            seconds,
        }
    }

    fn of(&self, c: char) -> u8 {
        let mut buffer = [0; 4];
        let text = c.encode_utf8(&mut buffer);
        let mut flags = 0;
        for (condition, flag) in [
            (self.letter.is_match(text), LETTER),
            (self.number.is_match(text), NUMBER),
            (self.seconds.contains(&c), COMPOSES),
        ] {
            flags |= if condition { flag } else { 0 };
        }
        flags
    }
}

fn all() -> impl Iterator<Item = char> {
    (0..LIMIT as u32).filter_map(char::from_u32)
}

/// Writes a table of one byte a character, in blocks, each kind of block once.
fn blocks(out: &mut String, names: [&str; 2], docs: [&str; 2], of: impl Fn(char) -> u8) {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut known: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut index = Vec::new();
    for start in (0..LIMIT).step_by(BLOCK) {
        let block: Vec<u8> = (start..start + BLOCK)
            .map(|point| char::from_u32(point as u32).map_or(0, &of))
            .collect();
        let position = *known.entry(block.clone()).or_insert_with(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        index.push(position);
    }
    let most = index.iter().copied().max().unwrap_or(0);
    let kind = if most < 256 { "u8" } else { "u16" };
    let [index_name, blocks_name] = names;
    let [index_doc, blocks_doc] = docs;
    writeln!(
        out,
        "/// {index_doc}\npub(super) static {index_name}: [{kind}; {}] = [",
        index.len()
    )
    .expect("text");
    rows(out, &index, 40, usize::to_string);
    writeln!(
        out,
        "];\n\n/// {blocks_doc}\npub(super) static {blocks_name}: [[u8; {BLOCK}]; {}] = [",
        blocks.len()
    )
    .expect("text");
    for block in &blocks {
        out.push_str("  [\n");
        rows(out, block, 64, u8::to_string);
        out.push_str("  ],\n");
    }
    out.push_str("];\n\n");
}

/// `\u{..}` for everything that an editor might mangle, so that the file is pure ASCII.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        write!(out, "\\u{{{:X}}}", u32::from(c)).expect("a string takes all");
        out
    })
}

fn rows<T>(out: &mut String, items: &[T], per_row: usize, show: impl Fn(&T) -> String) {
    for row in items.chunks(per_row) {
        let cells: Vec<String> = row.iter().map(&show).collect();
        writeln!(out, "    {},", cells.join(", ")).expect("a string takes all");
    }
}

fn generate() -> String {
    let word = regex::Regex::new(r"^\w$").expect("a valid pattern");
    let all: Vec<char> = all().collect();

    let mut classes: Vec<(u32, u32, u8)> = Vec::new();
    for &c in &all {
        let class = canonical_combining_class(c);
        match classes.last_mut() {
            _ if class == 0 => {}
            Some((_, last, same)) if *last + 1 == u32::from(c) && *same == class => *last += 1,
            _ => classes.push((u32::from(c), u32::from(c), class)),
        }
    }

    let mut marks: Vec<(u32, u32)> = Vec::new();
    for point in all
        .iter()
        .filter(|&&c| is_combining_mark(c))
        .map(|&c| u32::from(c))
    {
        match marks.last_mut() {
            Some((_, last)) if *last + 1 == point => *last = point,
            _ => marks.push((point, point)),
        }
    }

    let nfd: Vec<(char, String)> = all
        .iter()
        .filter(|&&c| !is_hangul_syllable(c) && canonical(c) != c.to_string())
        .map(|&c| (c, canonical(c)))
        .collect();
    let nfkd: Vec<(char, String)> = all
        .iter()
        .filter(|&&c| !is_hangul_syllable(c) && compatible(c) != canonical(c))
        .map(|&c| (c, compatible(c)))
        .collect();

    let mut out = String::from(
        "//! Generated by `tests/unicode_tables.rs`, which says how and checks it. Do not edit.\n\n",
    );
    blocks(
        &mut out,
        ["INDEX", "BLOCKS"],
        [
            "Index of each run of 128 code points into [`BLOCKS`].",
            "The flags of 128 code points each.",
        ],
        |c| flags(c, &word),
    );
    let kinds = Kinds::new();
    blocks(
        &mut out,
        ["KIND_INDEX", "KIND_BLOCKS"],
        [
            "Index of each run of 128 code points into [`KIND_BLOCKS`].",
            "The further flags of 128 code points each.",
        ],
        |c| kinds.of(c),
    );
    writeln!(out, "/// Ranges (first, last, canonical combining class), sorted; what is missing has class 0.\npub(super) static CLASSES: [(u32, u32, u8); {}] = [", classes.len()).expect("text");
    rows(&mut out, &classes, 8, |(a, b, class)| {
        format!("({a:#X}, {b:#X}, {class})")
    });
    writeln!(out, "];\n\n/// Ranges (first, last) of combining marks (M*), sorted.\npub(super) static COMBINING: [(u32, u32); {}] = [", marks.len()).expect("text");
    rows(&mut out, &marks, 8, |(a, b)| format!("({a:#X}, {b:#X})"));
    writeln!(out, "];\n\n/// Full canonical decompositions, sorted; Hangul syllables are computed instead.\npub(super) static CANONICAL: [(char, &str); {}] = [", nfd.len()).expect("text");
    let pair = |(c, text): &(char, String)| {
        format!("('{}', \"{}\")", literal(&c.to_string()), literal(text))
    };
    rows(&mut out, &nfd, 8, pair);
    writeln!(out, "];\n\n/// Full compatibility decompositions where they differ from the canonical ones, sorted.\npub(super) static COMPATIBLE: [(char, &str); {}] = [", nfkd.len()).expect("text");
    rows(&mut out, &nfkd, 8, pair);
    out.push_str("];\n\n");

    // A pair composes only to a character whose full decomposition ends in the pair's second half, which keeps the
    // search for pairs short.
    let mut pairs: Vec<(char, char, char)> = Vec::new();
    let mut firsts: Vec<char> = nfd
        .iter()
        .flat_map(|(c, text)| text.chars().chain([*c]))
        .collect();
    firsts.sort_unstable();
    firsts.dedup();
    let mut seconds: Vec<char> = nfd
        .iter()
        .filter_map(|(_, text)| text.chars().last())
        .collect();
    seconds.sort_unstable();
    seconds.dedup();
    for &a in &firsts {
        for &b in &seconds {
            if let Some(c) = compose(a, b).filter(|&c| !is_hangul_syllable(c)) {
                pairs.push((a, b, c));
            }
        }
    }
    writeln!(out, "/// Primary composites (first, second, composed), sorted; Hangul syllables are computed instead.\npub(super) static COMPOSITES: [(char, char, char); {}] = [", pairs.len()).expect("text");
    rows(&mut out, &pairs, 8, |(a, b, c)| {
        format!(
            "('{}', '{}', '{}')",
            literal(&a.to_string()),
            literal(&b.to_string()),
            literal(&c.to_string())
        )
    });
    out.push_str("];\n");
    out
}

#[test]
fn committed_tables_are_what_the_peers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/unicode/tables.rs");
    let fresh = generate();
    if std::env::var_os("BERTHA_WRITE_TABLES").is_some() {
        std::fs::write(&path, &fresh).expect("writing the table");
    }
    let committed = std::fs::read_to_string(&path).expect("reading the committed table");
    assert!(
        committed == fresh,
        "src/unicode/tables.rs is not what this test generates: see its head comment"
    );
}
