//! Every length against every limit, stride, strategy and direction, so that no corner is left to chance.

use bertha_tokenizer::{
    Direction, EncodeOptions, Input, TokenizerError, Truncation, TruncationStrategy,
};

use crate::recipes::named;

const STRATEGIES: [TruncationStrategy; 3] = [
    TruncationStrategy::LongestFirst,
    TruncationStrategy::OnlyFirst,
    TruncationStrategy::OnlySecond,
];

fn words(count: usize) -> String {
    ["river ", "sea ", "hill "]
        .iter()
        .cycle()
        .take(count)
        .copied()
        .collect()
}

fn truncations(max_length: usize, stride: usize) -> impl Iterator<Item = Truncation> {
    STRATEGIES.into_iter().flat_map(move |strategy| {
        [Direction::Left, Direction::Right].map(|direction| {
            Truncation::new(max_length)
                .stride(stride)
                .strategy(strategy)
                .direction(direction)
        })
    })
}

#[test]
fn one_text_of_every_length() {
    let both = named("uncased");
    for (length, max_length, stride) in grid(12, 3..10, 7) {
        for truncation in truncations(max_length, stride) {
            let options = EncodeOptions::default().truncation(Some(truncation));
            // Without room for the stride theirs fails only once it has to cut.
            if stride < max_length - 2 {
                both.check(&words(length), &options);
                both.check(&words(length), &options.special_tokens(false));
            }
        }
    }
}

#[test]
fn pairs_of_every_length() {
    for name in [
        "uncased",
        "uncased, BertProcessing, words of at most 7 characters",
    ] {
        let both = named(name);
        for (first, max_length, stride) in grid(8, 5..12, 4) {
            for second in 0..8 {
                for truncation in truncations(max_length, stride) {
                    let input = (words(first), words(second));
                    both.check(
                        (&input.0, &input.1),
                        &EncodeOptions::default().truncation(Some(truncation)),
                    );
                }
            }
        }
    }
}

fn grid(
    lengths: usize,
    limits: std::ops::Range<usize>,
    strides: usize,
) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..lengths).flat_map(move |length| {
        limits
            .clone()
            .flat_map(move |limit| (0..strides).map(move |stride| (length, limit, stride)))
    })
}

fn refused<'a>(input: impl Into<Input<'a>>, truncation: Truncation) -> TokenizerError {
    let options = EncodeOptions::default().truncation(Some(truncation));
    named("uncased")
        .ours
        .encode(input, &options)
        .expect_err("no such cut")
}

#[test]
fn a_cut_that_cannot_be_made_says_why() {
    let text = words(9);
    let error = refused(&text, Truncation::new(1));
    assert!(
        matches!(
            error,
            TokenizerError::LimitTooSmall {
                max_length: 1,
                special: 2
            }
        ),
        "{error}"
    );

    let error = refused((&text, &text), Truncation::new(2));
    assert!(
        matches!(
            error,
            TokenizerError::LimitTooSmall {
                max_length: 2,
                special: 3
            }
        ),
        "{error}"
    );

    let error = refused(&text, Truncation::new(8).stride(6));
    assert!(
        matches!(
            error,
            TokenizerError::StrideTooLarge {
                stride: 6,
                room: 6,
                max_length: 8
            }
        ),
        "{error}"
    );

    let error = refused(
        &text,
        Truncation::new(8).strategy(TruncationStrategy::OnlySecond),
    );
    assert!(matches!(error, TokenizerError::NoSecondText), "{error}");
    assert!(error.to_string().contains("only_second"), "{error}");

    let error = refused(
        (text.as_str(), "sea"),
        Truncation::new(8).strategy(TruncationStrategy::OnlySecond),
    );
    assert!(
        matches!(
            error,
            TokenizerError::TextTooShort {
                remove: 5,
                found: 1,
                max_length: 8,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("only_second must remove 5 tokens"),
        "{error}"
    );
}

#[test]
fn windows_cover_the_text() {
    let both = named("uncased");
    let text = words(100);
    let options = EncodeOptions::default().truncation(Some(Truncation::new(12).stride(4)));
    let encoding = both.ours.encode(&text, &options).unwrap();
    let whole = both.ours.encode(&text, &EncodeOptions::default()).unwrap();
    let mut covered = vec![false; text.len()];
    for window in [&encoding].into_iter().chain(encoding.overflowing()) {
        assert!(window.len() <= 12);
        for &(start, end) in window.offsets() {
            covered[start as usize..end as usize].fill(true);
        }
    }
    for &(start, end) in whole.offsets() {
        assert!(
            covered[start as usize..end as usize].iter().all(|&c| c),
            "{start}..{end} is in no window"
        );
    }
    let without = both.ours.encode(&text, &options.overflow(false)).unwrap();
    assert_eq!(without.ids(), encoding.ids());
    assert!(without.overflowing().is_empty());
}
