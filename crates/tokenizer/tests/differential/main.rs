//! bertha's tokenizer against Hugging Face's `tokenizers` 0.22.2: ids, tokens, offsets, type ids, special masks, word
//! ids, sequence ids, windows and decoded text must all be equal.

mod added_tokens;
mod chains;
mod characters;
mod charsmap;
mod components;
mod corpora;
mod decoding;
mod harness;
mod models;
mod random;
mod real_model;
mod real_text;
mod real_vocabularies;
mod recipes;
mod scale;
mod soak;
mod templates;
mod texts;
mod truncation;
mod vocabularies;

use recipes::ALL;

#[test]
fn vocabularies() {
    for both in ALL.iter() {
        both.check_vocabulary();
    }
}
