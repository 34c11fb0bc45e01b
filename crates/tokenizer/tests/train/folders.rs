//! Folders load, here and in `tokenizers`, and encode as they were trained to.

use std::path::Path;

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, TrainError, TrainedTokenizer};
use bertha_tokenizer::{EncodeOptions, OffsetKind, SpecialToken, Tokenizer};
use serde_json::Value;

use crate::corpus::{LATIN, counts, lines};

fn trained(trainer: &TokenizerTrainer) -> TrainedTokenizer {
    trainer.train(&counts(trainer, &LATIN)).unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn theirs(dir: &Path) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_file(dir.join("tokenizer.json")).unwrap()
}

#[test]
fn word_piece_gives_the_same_ids_in_both_libraries() {
    for lowercase in [true, false] {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("new/folder");
        let trainer = TokenizerTrainer::new(TokenizerKind::WordPiece)
            .vocab_size(3000)
            .lowercase(lowercase);
        let trained = trained(&trainer);
        trained.save(&dir, false).unwrap();
        assert_eq!(
            files(&dir),
            [
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt"
            ]
        );
        let whole = Tokenizer::from_dir(&dir).unwrap();
        let peer = theirs(&dir);
        std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
        let parts = Tokenizer::from_dir(&dir).unwrap();
        assert_eq!(whole.vocab_size(), trained.tokens().len());
        assert_eq!(whole.special_token(SpecialToken::Mask), Some(("[MASK]", 4)));
        let options = EncodeOptions::default().offsets(OffsetKind::Bytes);
        for pair in lines().windows(2) {
            let pair = (pair[0], pair[1]);
            let theirs = peer.encode(pair, true).unwrap();
            for ours in [&whole, &parts] {
                let ours = ours.encode(pair, &options).unwrap();
                assert_eq!(ours.ids(), theirs.get_ids(), "{pair:?}");
                assert_eq!(ours.type_ids(), theirs.get_type_ids());
            }
        }
    }
}

#[test]
fn other_kinds_spell_their_corpus() {
    for kind in [
        TokenizerKind::Bpe,
        TokenizerKind::ByteLevelBpe,
        TokenizerKind::Unigram,
    ] {
        let dir = tempfile::tempdir().unwrap();
        let trainer = TokenizerTrainer::new(kind).vocab_size(3000);
        let trained = trained(&trainer);
        trained.save(dir.path(), false).unwrap();
        let expected: &[&str] = match kind {
            TokenizerKind::Unigram => &[
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
            _ => &[
                "merges.txt",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.json",
            ],
        };
        assert_eq!(files(dir.path()), expected);
        let peer = theirs(dir.path());
        assert_eq!(peer.get_vocab_size(true), trained.tokens().len());
        for (id, token) in trained.tokens().iter().enumerate() {
            assert_eq!(peer.token_to_id(token), Some(id as u32), "{token}");
        }
        let (mut tokens, mut words) = (0, 0);
        for text in LATIN.iter().flat_map(|text| text.lines()) {
            let encoding = peer.encode(text, true).unwrap();
            let ids = encoding.get_ids();
            assert_eq!((ids[0], ids[ids.len() - 1]), (0, 2), "{text:?}");
            assert!(!ids[1..ids.len() - 1].iter().any(|id| *id < 5), "{text:?}");
            tokens += ids.len() - 2;
            words += text.split_whitespace().count();
            let back = peer.decode(ids, true).unwrap();
            match kind {
                TokenizerKind::ByteLevelBpe => assert_eq!(back, text),
                _ if text.is_ascii() => {
                    let spaces = |text: &str| text.split(' ').collect::<Vec<_>>().concat();
                    assert_eq!(spaces(&back), spaces(text));
                }
                _ => {}
            }
        }
        // Text is spelled in words and parts of words, not in letters.
        assert!(
            tokens < 2 * words,
            "{kind:?}: {tokens} tokens for {words} words"
        );
        let pair = peer.encode(("a", "b"), true).unwrap();
        assert_eq!(pair.get_special_tokens_mask(), [1, 0, 1, 1, 0, 1]);
        let mask = peer.encode("the <mask> river", true).unwrap();
        assert_eq!(mask.get_ids().iter().filter(|id| **id == 4).count(), 1);
    }
}

#[test]
fn byte_level_bpe_knows_every_text() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = TokenizerTrainer::new(TokenizerKind::ByteLevelBpe)
        .vocab_size(300)
        .special_tokens(["<s>", "</s>"]);
    trained(&trainer).save(dir.path(), false).unwrap();
    let peer = theirs(dir.path());
    for text in lines() {
        let encoding = peer.encode(text, true).unwrap();
        assert_eq!(peer.decode(encoding.get_ids(), true).unwrap(), text);
    }
}

#[test]
fn a_tokenizer_is_replaced_only_when_that_was_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    let bpe = trained(&TokenizerTrainer::new(TokenizerKind::Bpe).vocab_size(600));
    bpe.save(dir.path(), false).unwrap();
    let unigram = trained(&TokenizerTrainer::new(TokenizerKind::Unigram).vocab_size(600));
    let error = unigram.save(dir.path(), false).unwrap_err();
    assert!(matches!(
        error,
        TrainError::Exists {
            file: "tokenizer.json",
            ..
        }
    ));
    unigram.save(dir.path(), true).unwrap();
    assert_eq!(
        files(dir.path()),
        [
            "config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(
        theirs(dir.path()).get_vocab_size(true),
        unigram.tokens().len()
    );
}

#[test]
fn special_tokens_have_the_roles_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = TokenizerTrainer::new(TokenizerKind::WordPiece)
        .vocab_size(500)
        .special_tokens(["<unk>", "[NEW]", "</s>", "<s>"]);
    trained(&trainer).save(dir.path(), false).unwrap();
    let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
    for (role, expected) in [
        (SpecialToken::Unk, Some(("<unk>", 0))),
        (SpecialToken::Sep, Some(("</s>", 2))),
        (SpecialToken::Cls, Some(("<s>", 3))),
        (SpecialToken::Mask, None),
    ] {
        assert_eq!(tokenizer.special_token(role), expected);
    }
    let json = std::fs::read(dir.path().join("special_tokens_map.json")).unwrap();
    let map: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        map["additional_special_tokens"],
        serde_json::json!(["[NEW]"])
    );
    let pair = tokenizer
        .encode(("a", "[NEW]"), &EncodeOptions::default())
        .unwrap();
    assert_eq!(pair.ids()[0], 3);
    assert_eq!(pair.ids()[2..], [2, 2, 1, 2]);
    // Without a classifier token nothing is added.
    let bare = trainer.special_tokens(["[UNK]"]);
    trained(&bare).save(dir.path(), true).unwrap();
    let json = std::fs::read(dir.path().join("tokenizer.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["post_processor"], Value::Null);
}

#[test]
fn options_that_make_no_sense_are_named() {
    let refused = |trainer: TokenizerTrainer, parts: &[&str]| {
        let error = trainer
            .train(&[("a", 1)].into_iter().collect())
            .unwrap_err();
        for part in parts {
            assert!(
                error.to_string().contains(part),
                "{part} is not in: {error}"
            );
        }
    };
    let of = TokenizerTrainer::new;
    let piece = || of(TokenizerKind::WordPiece);
    refused(
        piece().special_tokens(["[PAD]"]),
        &["special_tokens", "[PAD]", "[UNK]"],
    );
    refused(
        piece().special_tokens(["[UNK]", "[UNK]"]),
        &["\"[UNK]\" twice"],
    );
    refused(
        piece().special_tokens(["[UNK]", ""]),
        &["special_tokens", "\"\""],
    );
    refused(piece().vocab_size(5), &["vocab_size is 5", "at least 6"]);
    refused(
        of(TokenizerKind::ByteLevelBpe).vocab_size(260),
        &["at least 261", "256"],
    );
    let unigram = || of(TokenizerKind::Unigram);
    refused(unigram().vocab_size(3), &["vocab_size is 3", "at least 6"]);
    refused(unigram().shrinking_factor(1.0), &["shrinking_factor is 1"]);
    refused(
        unigram().shrinking_factor(f64::NAN),
        &["shrinking_factor is NaN"],
    );
    refused(unigram().max_piece_length(0), &["max_piece_length is 0"]);
    refused(unigram().sub_iterations(0), &["sub_iterations is 0"]);
    let error = piece().train(&[("", 1)].into_iter().collect()).unwrap_err();
    assert!(matches!(error, TrainError::NoWords));
}
