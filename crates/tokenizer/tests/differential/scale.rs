//! Megabytes of what is cheap to write and expensive to read badly. Work that grows faster than the text would keep
//! these tests from finishing.

use bertha_tokenizer::{EncodeOptions, Truncation};

use crate::characters::spelled_out;
use crate::harness::Both;
use crate::recipes::{UNCASED, named, normalizer, tokenizer_json};

const MEGABYTE: usize = 1 << 20;

fn check(name: &str, text: &str) {
    named(name).check(text, &EncodeOptions::default());
}

#[test]
fn one_word_of_a_megabyte() {
    for word in ["a", "é", "\u{e000}", "가", "中"] {
        let text = word.repeat(MEGABYTE / word.len());
        check("uncased", &text);
        check("cased", &text);
    }
}

#[test]
fn one_word_of_a_megabyte_that_must_be_spelled() {
    // Theirs tries every prefix at every step; a five-hundredth is as far as it goes in reasonable time.
    let mut json = tokenizer_json(&UNCASED, normalizer(true, true, None, true));
    json["model"]["max_input_chars_per_word"] = (1_u64 << 32).into();
    let both = Both::new("words without a limit", &json);
    for piece in ["a", "river", "unbelievablé", "q!", "a\u{301}"] {
        both.check(&piece.repeat(2000 / piece.len()), &EncodeOptions::default());
        let text = piece.repeat(MEGABYTE / piece.len());
        let encoding = both.ours.encode(&text, &EncodeOptions::default()).unwrap();
        let last = encoding.offsets()[encoding.len() - 2];
        assert_eq!(
            last.1 as usize,
            text.trim_end_matches('\u{301}').chars().count(),
            "the last token ends where {piece:?} ends, but for a stripped accent"
        );
    }
    // The last letter spoils the whole word.
    let text = "a".repeat(MEGABYTE) + "\u{e01ff}\u{1f9ff}";
    let encoding = both.ours.encode(&text, &EncodeOptions::default()).unwrap();
    assert_eq!(
        both.ours.tokens(&encoding).collect::<Vec<_>>(),
        ["[CLS]", "[UNK]", "[SEP]"]
    );
}

#[test]
fn a_megabyte_of_one_special_token() {
    for (name, token) in [
        ("uncased", "[MASK]"),
        ("uncased", "[SEP]"),
        ("uncased, flagged added tokens", "[MASK]"),
        ("uncased, flagged added tokens", "<ENT>"),
        ("uncased, flagged added tokens", "river"),
        ("cased, flagged added tokens", "<e"),
    ] {
        // Theirs looks for the spaces before a match in all the text before it: not in a megabyte, in our time.
        named(name).check(
            &token.repeat(24_000 / token.len()),
            &EncodeOptions::default(),
        );
        let text = token.repeat(MEGABYTE / token.len());
        let encoding = named(name)
            .ours
            .encode(&text, &EncodeOptions::default())
            .unwrap();
        if token == "[SEP]" {
            assert_eq!(encoding.len(), text.len() / token.len() + 2);
        }
        let guarded = EncodeOptions::default().match_special_tokens(false);
        named(name).ours.encode(&text, &guarded).unwrap();
    }
}

#[test]
fn a_megabyte_of_spaces() {
    for space in [" ", "\n", "\t ", "\u{3000}", "\u{200b}", "\0"] {
        let text = space.repeat(MEGABYTE / space.len());
        check("uncased", &text);
        check("no normalizer", &text);
    }
    // Spaces that a token swallows, from either side, again and again.
    let both = named("uncased, flagged added tokens");
    for swallowing in ["[MASK]", "<ENT>", "<e", "york"] {
        let few = format!("{swallowing}{}", " ".repeat(300)).repeat(10);
        both.check(&few, &EncodeOptions::default());
        let many = format!(
            "{}{swallowing}{}",
            " ".repeat(MEGABYTE / 2),
            " ".repeat(MEGABYTE / 2)
        );
        let encoding = both.ours.encode(&many, &EncodeOptions::default()).unwrap();
        assert_eq!(encoding.len(), 3);
    }
    let guarded = format!("{}x", "\u{2003}".repeat(MEGABYTE / 3)).repeat(2);
    both.ours
        .encode(&guarded, &EncodeOptions::default())
        .unwrap();
}

#[test]
fn deep_runs_of_combining_marks() {
    // A decomposition sorts a run of marks by class: 400,000 of them, in every order, must not take a square.
    let marks = [
        '\u{301}',
        '\u{323}',
        '\u{334}',
        '\u{345}',
        '\u{F71}',
        '\u{1D165}',
        '\u{302E}',
    ];
    let ascending =
        |count: usize| -> String { (0..count).map(|i| marks[i * marks.len() / count]).collect() };
    let mixed: String = (0..MEGABYTE / 3)
        .map(|i| marks[i * i % marks.len()])
        .collect();
    let falling: String = ascending(MEGABYTE / 3).chars().rev().collect();
    for marks in [mixed, falling, ascending(MEGABYTE / 3)] {
        let text = format!("e{marks} x");
        for both in [
            named("uncased"),
            named("cased"),
            named("cased, accents stripped"),
            spelled_out(0),
        ] {
            both.check(&text, &EncodeOptions::default());
        }
    }
}

/// What a hundred megabytes in one text take, beside a hundred texts of one.
#[test]
#[ignore = "needs 7 GiB of memory; prints times, which are no test's business"]
fn a_hundred_megabytes() {
    let options = EncodeOptions::default();
    let word = |n: usize| format!("river{} ", n % 100_003);
    let mut megabyte: String = (0..).map(word).take(MEGABYTE / 8).collect();
    megabyte.truncate(MEGABYTE);
    megabyte.push('\n');
    for name in ["uncased", "cased"] {
        let ours = &named(name).ours;
        let text = megabyte.repeat(100);
        for with_offsets in [false, true] {
            let count = |text: &str| {
                if with_offsets {
                    ours.encode(text, &options).expect("it encodes").len()
                } else {
                    ours.encode_ids(text, &options).expect("it encodes").len()
                }
            };
            let start = std::time::Instant::now();
            let apart: usize = (0..100).map(|_| count(&megabyte) - 2).sum();
            let middle = std::time::Instant::now();
            assert_eq!(count(&text) - 2, apart);
            println!(
                "{name}, offsets {with_offsets}: a hundred texts {:?}, one text {:?}",
                middle - start,
                middle.elapsed()
            );
        }
    }
}

#[test]
fn windows_of_a_megabyte() {
    let text = "the river met the sea. ".repeat(MEGABYTE / 23);
    let both = named("uncased");
    let truncation = Truncation::new(512).stride(128);
    both.check(
        &text,
        &EncodeOptions::default().truncation(Some(truncation)),
    );
    both.check(
        ("where is it?", text.as_str()),
        &EncodeOptions::truncated(64),
    );
    // A thousand windows of each of two texts make a million pairs; only the first is asked for.
    let options = EncodeOptions::truncated(200).overflow(false);
    let encoding = both.ours.encode((&text, &text), &options).unwrap();
    assert_eq!(encoding.len(), 200);
}
