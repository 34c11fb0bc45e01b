//! Any bytes as the files of a folder: the first byte says which of them, a line of `====` ends one file and begins the
//! next. What loads must encode without a panic.
#![no_main]

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

const FILES: [&[&str]; 5] = [
    &["vocab.txt", "tokenizer_config.json"],
    &["vocab.json", "merges.txt", "tokenizer_config.json"],
    &["spiece.model", "tokenizer_config.json"],
    &["sentencepiece.bpe.model", "config.json"],
    &[
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ],
];
const END: &[u8] = b"\n====\n";

/// Cuts `data` at its first [`END`].
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.windows(END.len()).position(|window| window == END);
    at.map_or((data, &[]), |at| (&data[..at], &data[at + END.len()..]))
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, mut rest)) = data.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in FILES[kind as usize % FILES.len()] {
        let (contents, behind) = split(rest);
        if !contents.is_empty() {
            std::fs::write(folder.path().join(name), contents).expect("a file is written");
        }
        rest = behind;
    }
    if let Ok(tokenizer) = Tokenizer::from_dir(folder.path()) {
        for text in ["", "The river, élan!", " 東京 [MASK]\u{301}<s> 12\n\n x"] {
            let options = EncodeOptions::default();
            let ids = tokenizer.encode_ids(text, &options).ok();
            let encoding = tokenizer.encode(text, &options).ok();
            assert_eq!(ids.as_deref(), encoding.as_ref().map(|e| e.ids()));
        }
    }
});
