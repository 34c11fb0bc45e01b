//! Small vocabularies of every kind, learnt from the texts of these tests.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::real_text::TEXTS;

/// The character that stands for a byte in byte-level vocabularies.
pub fn byte_char(byte: u8) -> char {
    let printable = |byte: &u8| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(&byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(byte)).count();
    char::from_u32(0x100 + before as u32).expect("a letter")
}

/// The words of the texts with the space before them, and how often each comes.
fn words(space: &str, spell: impl Fn(&str) -> String) -> BTreeMap<String, u64> {
    let mut words = BTreeMap::new();
    for (_, text) in TEXTS {
        for word in text.split_whitespace().take(6000) {
            *words.entry(format!("{space}{}", spell(word))).or_default() += 1;
        }
    }
    words
}

/// Pairs in the order in which they are learnt.
fn merges(words: &BTreeMap<String, u64>, count: usize) -> Vec<(String, String)> {
    let mut words: Vec<(Vec<String>, u64)> = words
        .iter()
        .map(|(word, count)| (word.chars().map(String::from).collect(), *count))
        .collect();
    let mut merges = Vec::new();
    for _ in 0..count {
        let mut pairs: HashMap<(&str, &str), u64> = HashMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *pairs.entry((&pair[0], &pair[1])).or_default() += count;
            }
        }
        let best = pairs.iter().max_by_key(|&(pair, count)| (count, pair));
        let Some(((left, right), _)) = best else {
            break;
        };
        let (left, right) = ((*left).to_owned(), (*right).to_owned());
        for (word, _) in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if word[at] == left && word[at + 1] == right {
                    word[at].push_str(&right);
                    word.remove(at + 1);
                }
                at += 1;
            }
        }
        merges.push((left, right));
    }
    merges
}

/// The fields of a model: vocabulary and merges over an alphabet.
fn bpe(
    special: &[&str],
    alphabet: impl Iterator<Item = char>,
    merges: &[(String, String)],
) -> Value {
    let mut vocab: Map<String, Value> = Map::new();
    let tokens = special.iter().map(|token| (*token).to_owned());
    let tokens = tokens.chain(alphabet.map(String::from));
    for token in tokens.chain(merges.iter().map(|(left, right)| format!("{left}{right}"))) {
        let id = vocab.len();
        vocab.entry(token).or_insert(json!(id));
    }
    json!({"type": "BPE", "vocab": vocab, "merges": merges})
}

/// Special tokens as fairseq has them.
pub const SPECIAL: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];

/// A byte-level BPE model.
pub static BYTE_LEVEL: LazyLock<Value> = LazyLock::new(|| {
    let spell = |word: &str| word.bytes().map(byte_char).collect();
    let merges = merges(&words("Ġ", spell), 400);
    bpe(&SPECIAL, (0..=u8::MAX).map(byte_char), &merges)
});

/// A BPE model of characters with marks for spaces.
pub static MARKED: LazyLock<Value> = LazyLock::new(|| {
    let merges = merges(&words("▁", str::to_owned), 300);
    let letters = ('!'..='~').chain("▁éüßøäñçıİшдо漢かأ한".chars());
    let known: Vec<char> = letters.collect();
    let spelled = |text: &String| text.chars().all(|c| known.contains(&c));
    let merges: Vec<_> = merges
        .into_iter()
        .filter(|(left, right)| spelled(left) && spelled(right))
        .collect();
    let mut model = bpe(&SPECIAL, known.iter().copied(), &merges);
    model["unk_token"] = json!("<unk>");
    model
});

/// With every token `<0x00>` to `<0xFF>`.
pub fn with_bytes(mut model: Value) -> Value {
    model["byte_fallback"] = json!(true);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    match &mut model["vocab"] {
        Value::Object(vocab) => {
            for token in bytes {
                let id = vocab.len();
                vocab.insert(token, json!(id));
            }
        }
        Value::Array(vocab) => vocab.extend(bytes.map(|token| json!([token, -20.0]))),
        other => panic!("{other} is no vocabulary"),
    }
    model
}

/// A Unigram model with marks for spaces.
pub static UNIGRAM: LazyLock<Value> = LazyLock::new(|| {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (word, count) in words("▁", str::to_owned) {
        let starts: Vec<usize> = word
            .char_indices()
            .map(|(at, _)| at)
            .chain([word.len()])
            .collect();
        for (from, &start) in starts.iter().enumerate() {
            for &end in starts.iter().skip(from + 1).take(7) {
                *counts.entry(word[start..end].to_owned()).or_default() += count;
            }
        }
    }
    let mut pieces: Vec<(String, u64)> =
        counts.into_iter().filter(|(_, count)| *count > 3).collect();
    pieces.sort_by_key(|(piece, count)| (std::cmp::Reverse(*count), piece.clone()));
    pieces.truncate(3000);
    let total: u64 = pieces.iter().map(|(_, count)| count).sum();
    let mut vocab: Vec<Value> = SPECIAL[..4]
        .iter()
        .map(|token| json!([token, 0.0]))
        .collect();
    vocab.extend(
        pieces
            .iter()
            .map(|(piece, count)| json!([piece, (*count as f64 / total as f64).ln()])),
    );
    vocab.push(json!(["<mask>", 0.0]));
    json!({"type": "Unigram", "unk_id": 3, "vocab": vocab})
});

/// A model of the most frequent words.
pub static WORD_LEVEL: LazyLock<Value> = LazyLock::new(|| {
    let mut words: Vec<(String, u64)> = words("", str::to_owned).into_iter().collect();
    words.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), word.clone()));
    let tokens = SPECIAL.iter().map(|token| (*token).to_owned());
    let tokens = tokens.chain(words.into_iter().map(|(word, _)| word).take(800));
    let tokens: std::collections::BTreeSet<String> = tokens
        .chain([" ", ".", ",", "'"].map(String::from))
        .collect();
    let vocab: Map<String, Value> = tokens
        .into_iter()
        .zip(0..)
        .map(|(token, id)| (token, json!(id)))
        .collect();
    json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": vocab})
});

/// The id of a token in any model.
pub fn id(model: &Value, token: &str) -> Value {
    match &model["vocab"] {
        Value::Object(vocab) => vocab[token].clone(),
        Value::Array(vocab) => json!(
            vocab
                .iter()
                .position(|entry| entry[0] == token)
                .expect("a token")
        ),
        other => panic!("{other} is no vocabulary"),
    }
}
