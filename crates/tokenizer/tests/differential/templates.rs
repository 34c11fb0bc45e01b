//! Post-processor templates other than BERT's own.

use bertha_tokenizer::{Direction, EncodeOptions, Truncation, TruncationStrategy};
use serde_json::{Value, json};

use crate::harness::Both;
use crate::recipes::{UNCASED, normalizer, tokenizer_json};

/// Reads the notation that `tokenizers` has for templates: `[CLS]:0 $A:0 [SEP]:0`.
fn pieces(template: &str) -> Value {
    let piece = |piece: &str| {
        let (name, type_id) = piece.rsplit_once(':').expect("every piece has a type id");
        let type_id: u32 = type_id.parse().expect("a type id is a number");
        match name.strip_prefix('$') {
            Some(text) => json!({"Sequence": {"id": text, "type_id": type_id}}),
            None => json!({"SpecialToken": {"id": name, "type_id": type_id}}),
        }
    };
    template.split_whitespace().map(piece).collect()
}

fn with_template(single: &str, pair: &str) -> Both {
    let mut json = tokenizer_json(&UNCASED, normalizer(true, true, None, true));
    let id = |token: &str| json["model"]["vocab"][token].clone();
    let double = json!({
        "id": "double", "ids": [id("[SEP]"), id("the"), id("[SEP]")], "tokens": ["[SEP]", "the", "[SEP]"],
    });
    json["post_processor"]["special_tokens"]["double"] = double;
    json["post_processor"]["single"] = pieces(single);
    json["post_processor"]["pair"] = pieces(pair);
    Both::new(format!("{single} and {pair}"), &json)
}

#[test]
fn templates_of_every_shape() {
    let texts = [
        "the river met the sea",
        "hills",
        "",
        "old mills and new ones, all [SEP] alike",
    ];
    for (single, pair) in [
        ("[CLS]:0 $A:0", "[CLS]:0 $A:0 [SEP]:0 [SEP]:0 $B:1"),
        ("$A:0 [SEP]:0", "$A:0 $B:1"),
        ("$A:0", "[SEP]:1 $B:1 [CLS]:0 $A:0 [SEP]:0"),
        ("[CLS]:3 $A:0 [SEP]:2", "[CLS]:7 $A:0 double:5 $B:1"),
        ("double:0 $A:0 double:1", "double:0 $A:0 $B:1 double:1"),
        (
            "[CLS]:0 $A:0 [SEP]:0 [MASK]:0",
            "[CLS]:0 $A:0 [MASK]:0 $B:1 [MASK]:0",
        ),
    ] {
        let pair = pair.replace("[MASK]", "double");
        let both = with_template(&single.replace("[MASK]", "double"), &pair);
        both.check_vocabulary();
        for first in texts {
            for special in [true, false] {
                let options = EncodeOptions::default().special_tokens(special);
                both.check(first, &options);
                for direction in [Direction::Left, Direction::Right] {
                    let truncation = Truncation::new(11).direction(direction).stride(1);
                    let options = options.clone().truncation(Some(truncation));
                    both.check(first, &options);
                    for second in texts {
                        both.check((first, second), &options);
                        let truncation = truncation.strategy(TruncationStrategy::OnlyFirst);
                        both.check(
                            (first, second),
                            &options.clone().truncation(Some(truncation)),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn type_ids_of_texts_are_the_templates() {
    // Theirs forgets them in windows after the first, so that part is stated here.
    let both = with_template("[CLS]:4 $A:2 [SEP]:5", "[CLS]:4 $A:2 [SEP]:5 $B:3 [SEP]:6");
    both.check("the river met the sea", &EncodeOptions::default());
    both.check(("the river", "met the sea"), &EncodeOptions::default());
    let truncation = Truncation::new(7).strategy(TruncationStrategy::OnlySecond);
    let options = EncodeOptions::default().truncation(Some(truncation));
    let encoding = both
        .ours
        .encode(("the river", "met the sea"), &options)
        .unwrap();
    assert_eq!(encoding.overflowing().len(), 1);
    assert_eq!(encoding.type_ids(), [4, 2, 2, 5, 3, 3, 6]);
    assert_eq!(encoding.overflowing()[0].type_ids(), [4, 2, 2, 5, 3, 6]);
    assert_eq!(encoding.overflowing()[0].sequence_ids()[4], Some(1));
}
