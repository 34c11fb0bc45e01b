//! all-MiniLM-L6-v2's own tokenizer.json, the vocabulary of bert-base-uncased.

use std::path::PathBuf;
use std::sync::LazyLock;

use bertha_tokenizer::{Direction, EncodeOptions, PaddingStrategy, SpecialToken, Tokenizer};
use proptest::prelude::*;

use crate::harness::Both;
use crate::random::config;
use crate::real_text::{TEXTS, check_text};
use crate::texts::{plain_options, text, truncating_options};

/// The folder of all-MiniLM-L6-v2, as `scripts/fetch-model.sh` leaves it. A test that cannot run has failed.
fn folder() -> PathBuf {
    let models = std::env::var_os("BERTHA_MODELS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")),
        PathBuf::from,
    );
    let folder = models.join("all-MiniLM-L6-v2");
    assert!(
        folder.join("tokenizer.json").is_file(),
        "this test needs the real model in {}: run scripts/fetch-model.sh once (84 MB)",
        folder.display()
    );
    folder
}

static MINILM: LazyLock<Both> = LazyLock::new(|| {
    let json =
        std::fs::read_to_string(folder().join("tokenizer.json")).expect("tokenizer.json is text");
    Both::from_json("all-MiniLM-L6-v2", &json)
});

#[test]
fn real_text() {
    MINILM.check_vocabulary();
    for (_, text) in TEXTS {
        check_text(&MINILM, text);
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn random_text(first in text(20), second in text(20), options in prop_oneof![plain_options(), truncating_options()]) {
        MINILM.check(&first, &options);
        MINILM.check((&first, &second), &options);
    }

    #[test]
    fn random_ids(ids in proptest::collection::vec(0_u32..30522, 0..30)) {
        MINILM.check_decode(&ids);
    }
}

#[test]
fn what_the_file_carries() {
    let tokenizer = &MINILM.ours;
    for (role, token, id) in [
        (SpecialToken::Pad, "[PAD]", 0),
        (SpecialToken::Unk, "[UNK]", 100),
        (SpecialToken::Cls, "[CLS]", 101),
        (SpecialToken::Sep, "[SEP]", 102),
        (SpecialToken::Mask, "[MASK]", 103),
    ] {
        assert_eq!(tokenizer.special_token(role), Some((token, id)));
    }
    let truncation = tokenizer.truncation().expect("the file has a truncation");
    assert_eq!((truncation.max_length, truncation.stride), (128, 0));
    assert_eq!(truncation.direction, Direction::Right);
    let padding = tokenizer.padding().expect("the file has a padding");
    assert_eq!(padding.strategy, PaddingStrategy::Fixed(128));
    assert_eq!((padding.pad_id, padding.pad_token.as_str()), (0, "[PAD]"));

    let long = "river ".repeat(300);
    let encoding = tokenizer.encode(&long, &EncodeOptions::default()).unwrap();
    assert_eq!(
        encoding.len(),
        302,
        "the file's truncation and padding are for those who ask"
    );
}

#[test]
fn the_folder_and_the_file_are_the_same_tokenizer() {
    let folder = folder();
    let from_dir = Tokenizer::from_dir(&folder).unwrap();
    let from_file = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
    let bare = tempfile::tempdir().unwrap();
    for file in [
        "vocab.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ] {
        if folder.join(file).is_file() {
            std::fs::copy(folder.join(file), bare.path().join(file)).unwrap();
        }
    }
    let from_vocab = Tokenizer::from_dir(bare.path()).unwrap();
    for (_, text) in TEXTS {
        let expected = from_dir.encode(text, &EncodeOptions::default()).unwrap();
        for other in [&from_file, &from_vocab] {
            let found = other.encode(text, &EncodeOptions::default()).unwrap();
            assert_eq!(found, expected);
            assert_eq!(
                other.decode(found.ids(), true).unwrap(),
                from_dir.decode(expected.ids(), true).unwrap()
            );
        }
    }
}
