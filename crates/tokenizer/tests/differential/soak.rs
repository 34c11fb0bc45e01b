//! Random text for as long as one likes; without a seed, other text every time:
//!
//! ```text
//! BERTHA_SOAK_CASES=1000000 cargo test --release -p bertha-tokenizer --test differential -- --ignored --nocapture
//! ```

use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use crate::harness::Both;
use crate::random::{config, decode};
use crate::texts::{plain_options, text, truncating_options};
use crate::{added_tokens, characters, components, recipes};

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {value:?}, expected a whole number")),
    )
}

/// A runner of as many cases as the environment asks for, divided by `texts`.
pub fn runner(texts: u64) -> TestRunner {
    let cases = setting("BERTHA_SOAK_CASES").unwrap_or(1_000_000) / texts;
    let seed = setting("BERTHA_SOAK_SEED").unwrap_or_else(|| RandomState::new().hash_one(0_u64));
    println!("{cases} cases of {texts} texts, seed {seed} (BERTHA_SOAK_SEED={seed} repeats them)");
    let mut config = config(u32::try_from(cases).expect("at most 4294967295 cases"));
    config.rng_seed = RngSeed::Fixed(seed);
    TestRunner::new(config)
}

/// Any tokenizer of this crate's tests.
fn any_tokenizer(which: usize) -> &'static Both {
    let all = recipes::ALL.iter().chain(components::ALL.iter());
    all.chain((0..characters::KINDS).map(characters::spelled_out))
        .nth(which)
        .expect("so many")
}

#[test]
#[ignore = "runs for minutes to hours: see the head of this file"]
fn soak() {
    let kinds = recipes::ALL.len() + components::ALL.len() + characters::KINDS;
    let options = prop_oneof![plain_options(), truncating_options()];
    let case = (
        0..kinds,
        text(20),
        proptest::option::weighted(0.3, text(20)),
        options,
    );
    let result = runner(1).run(&case, |(which, first, second, options)| {
        let both = any_tokenizer(which);
        match &second {
            Some(second) => both.check((&first, second), &options),
            None => both.check(&first, &options),
        }
        decode(both, &first);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
#[ignore = "runs for minutes to hours: see the head of this file"]
fn soak_added_tokens() {
    let case = (
        added_tokens::tokenizer_with_added(),
        added_tokens::texts(),
        any::<bool>(),
    );
    let result = runner(6).run(&case, |(both, texts, matched)| {
        added_tokens::check_added(&both, &texts, matched);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
