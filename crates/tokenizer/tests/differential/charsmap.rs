//! Compiled character maps of a few entries, in the format that sentencepiece has.

use std::collections::BTreeMap;

/// Compiles replacements and encodes them as tokenizer.json has them.
pub fn compiled(entries: &[(&str, &str)]) -> String {
    base64(&compiled_bytes(entries))
}

/// Compiles replacements: a double array, every node of which has a block of 256 units of its own.
pub fn compiled_bytes(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut replacements = Vec::new();
    // The prefixes of all keys, each a node, and the value of those that are a key.
    let mut nodes: BTreeMap<Vec<u8>, Option<u32>> = BTreeMap::from([(Vec::new(), None)]);
    for (key, replacement) in entries {
        for end in 1..=key.len() {
            nodes.entry(key.as_bytes()[..end].to_vec()).or_default();
        }
        let start = u32::try_from(replacements.len()).expect("a small map");
        nodes.insert(key.as_bytes().to_vec(), Some(start));
        replacements.extend(replacement.bytes().chain([0]));
    }
    let bases: BTreeMap<&[u8], usize> = nodes
        .keys()
        .map(Vec::as_slice)
        .zip((256..).step_by(256))
        .collect();
    let mut units = vec![0_u32; 256 * (nodes.len() + 1)];
    for (key, value) in &nodes {
        let base = bases[key.as_slice()];
        let (at, label) = match key.split_last() {
            None => (0, 0),
            Some((&label, parent)) => (bases[parent] ^ label as usize, u32::from(label)),
        };
        let offset = u32::try_from(at ^ base).expect("a small map");
        units[at] = offset << 10 | u32::from(value.is_some()) << 8 | label;
        if let Some(value) = value {
            units[base] = value | 1 << 31;
        }
    }
    let size = u32::try_from(4 * units.len()).expect("a small map");
    let trie = units.into_iter().flat_map(u32::to_le_bytes);
    size.to_le_bytes()
        .into_iter()
        .chain(trie)
        .chain(replacements)
        .collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            text.push(if at <= chunk.len() {
                char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

/// Entries of the kinds that sentencepiece's rules have: compatibility forms, compositions, what goes, what grows.
pub const ENTRIES: [(&str, &str); 22] = [
    ("\t", " "),
    ("\n", " "),
    ("\r", " "),
    ("\u{3000}", " "),
    ("\u{a0}", " "),
    ("\u{200b}", ""),
    ("\u{ad}", ""),
    ("\u{1}", ""),
    ("ﬁ", "fi"),
    ("①", "1"),
    ("Ⅷ", "VIII"),
    ("…", "..."),
    ("ﷺ", "صلى الله عليه وسلم"),
    ("e\u{301}", "é"),
    ("E\u{301}", "É"),
    ("\u{301}", "´"),
    ("\u{2126}", "Ω"),
    ("ｶ\u{ff9e}", "ガ"),
    ("ｶ", "カ"),
    ("！", "!"),
    ("ß", "ss"),
    ("ab", "ba"),
];
