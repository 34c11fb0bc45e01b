//! No allocation per token: a text of ten thousand words costs no more of them than the growth of a few vectors.

#![allow(
    unsafe_code,
    reason = "an allocator that counts can be written in no other way"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bertha_tokenizer::{BertOptions, EncodeOptions, Tokenizer};
use serde_json::{Value, json};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(act: impl FnOnce()) -> usize {
    let before = COUNT.get();
    act();
    COUNT.get() - before
}

fn text(words: usize) -> String {
    // Words that never repeat, so that none is remembered from before.
    (0..words).map(|n| format!("word{n}ing, ")).collect()
}

fn check(name: &str, tokenizer: &Tokenizer) {
    let options = EncodeOptions::default();
    let (short, long) = (text(100), text(10_000));
    // The first text grows what is kept from text to text.
    tokenizer.encode_ids(&long, &options).expect("it encodes");
    for with_offsets in [false, true] {
        let encode = |text: &str| {
            let mut tokens = 0;
            let count = allocations(|| {
                tokens = if with_offsets {
                    tokenizer.encode(text, &options).expect("it encodes").len()
                } else {
                    tokenizer
                        .encode_ids(text, &options)
                        .expect("it encodes")
                        .len()
                };
            });
            (tokens, count)
        };
        let (few, little) = encode(&short);
        let (many, much) = encode(&long);
        assert!(
            many >= 50 * few && many > 30_000,
            "{name}: {few} and {many} tokens"
        );
        // Seven doublings of each of an encoding's vectors, and of those that it is made in.
        assert!(
            much <= little + 100,
            "{name}, offsets {with_offsets}: {little} allocations for {few} tokens, {much} for {many}"
        );
    }
}

#[test]
fn word_piece() {
    let vocabulary = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/uncased.vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocabulary, BertOptions::default());
    check("WordPiece", &tokenizer.expect("it loads"));
}

fn letters() -> impl Iterator<Item = String> {
    ('a'..='z').chain('0'..='9').chain([',']).map(String::from)
}

fn from_parts(pre_tokenizer: Value, model: Value) -> Tokenizer {
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model,
    });
    Tokenizer::from_json(json.to_string()).expect("it loads")
}

/// The characters that stand for the 256 bytes in such vocabularies, all of which they have.
fn byte_characters() -> impl Iterator<Item = String> {
    let itself = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (256..).take(256 - (0..256).filter(itself).count());
    let characters = (0..256).filter(itself).chain(others);
    characters.filter_map(char::from_u32).map(String::from)
}

#[test]
fn byte_level_bpe() {
    let merges = ["w o", "r d", "wo rd", "i n", "in g", "Ġ word"];
    let merged = merges.iter().map(|merge| merge.replace(' ', ""));
    let tokens = byte_characters().chain(merged);
    let vocab: serde_json::Map<String, Value> = tokens
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let model = json!({"type": "BPE", "vocab": vocab, "merges": merges});
    check("BPE", &from_parts(bytes, model));
}

#[test]
fn unigram() {
    let mut vocab = vec![
        json!(["<unk>", 0.0]),
        json!(["▁", -3.0]),
        json!(["▁word", -2.0]),
        json!(["ing", -2.0]),
    ];
    vocab.extend(letters().map(|letter| json!([letter, -4.0])));
    let marks =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocab});
    check("Unigram", &from_parts(marks, model));
}
