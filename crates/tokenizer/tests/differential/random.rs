//! Random text through every tokenizer. `soak.rs` is the same for as long as one likes.

use bertha_tokenizer::{EncodeOptions, Input};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};

use crate::characters;
use crate::harness::Both;
use crate::recipes::ALL;
use crate::texts::{plain_options, text, truncating_options};

/// Settings for so many cases; failures print their minimal input, no file remembers them.
pub fn config(cases: u32) -> Config {
    let failure_persistence = Some(Box::new(FileFailurePersistence::Off) as Box<_>);
    Config {
        cases,
        failure_persistence,
        max_shrink_iters: 20_000,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn one_text(which in 0..ALL.len(), text in text(14), options in plain_options()) {
        ALL[which].check(&text, &options);
    }

    #[test]
    fn truncated_text(which in 0..ALL.len(), text in text(30), options in truncating_options()) {
        ALL[which].check(&text, &options);
    }

    #[test]
    fn pairs(which in 0..ALL.len(), first in text(20), second in text(20), options in plain_options()) {
        ALL[which].check((&first, &second), &options);
    }

    #[test]
    fn truncated_pairs(
        which in 0..ALL.len(), first in text(24), second in text(24), options in truncating_options(),
    ) {
        ALL[which].check((&first, &second), &options);
    }

    #[test]
    fn decoding_what_was_encoded(which in 0..ALL.len(), text in text(14)) {
        decode(&ALL[which], &text);
    }

    #[test]
    fn decoding_any_ids(which in 0..ALL.len(), ids in vec(0_u32..8002, 0..20)) {
        ALL[which].check_decode(&ids);
    }

    #[test]
    fn normalised_text(which in 0..characters::KINDS, text in text(10)) {
        characters::spelled_out(which).check(&text, &EncodeOptions::default());
    }
}

/// Encodes, and compares what the ids decode to.
pub fn decode(both: &Both, text: &str) {
    let encoding = both
        .ours
        .encode(text, &EncodeOptions::default())
        .expect("any text encodes");
    both.check_decode(encoding.ids());
}

#[test]
fn batches_are_as_one_by_one() {
    let mut runner = TestRunner::new(config(40));
    let inputs = vec((text(10), proptest::option::of(text(10))), 0..70);
    let result = runner.run(
        &(0..ALL.len(), inputs, truncating_options()),
        |(which, texts, options)| {
            let tokenizer = &ALL[which].ours;
            let inputs: Vec<Input<'_>> = texts
                .iter()
                .map(|(first, second)| match second {
                    Some(second) => Input::from((first, second)),
                    None => Input::from(first),
                })
                .collect();
            let single: Result<Vec<_>, _> = inputs
                .iter()
                .map(|&input| tokenizer.encode(input, &options))
                .collect();
            match (tokenizer.encode_batch(&inputs, &options), single) {
                (Ok(batch), Ok(single)) => prop_assert_eq!(batch, single),
                (Err(batch), Err(single)) => prop_assert_eq!(batch.to_string(), single.to_string()),
                (batch, single) => {
                    prop_assert!(false, "batch {:?}, one by one {:?}", batch, single)
                }
            }
            Ok(())
        },
    );
    result.unwrap_or_else(|error| panic!("{error}"));
}
