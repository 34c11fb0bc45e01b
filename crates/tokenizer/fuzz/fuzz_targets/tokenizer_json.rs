//! Any bytes as a tokenizer.json. What loads must encode and decode without a panic, ids alone as with offsets.
#![no_main]

use bertha_tokenizer::{EncodeOptions, Tokenizer};
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] = [
    "",
    "The river, élan!",
    " 東京 [MASK]\u{301}\u{200d}<s> 12",
    "a\0\u{e000}ﷺ\n\n  x",
];

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data) else {
        return;
    };
    for text in TEXTS {
        let options = EncodeOptions::default();
        let ids = tokenizer.encode_ids(text, &options);
        let Ok(encoding) = tokenizer.encode(text, &options) else {
            assert!(ids.is_err(), "ids without an encoding");
            continue;
        };
        assert_eq!(ids.expect("an encoding has ids"), encoding.ids());
        assert!(encoding.offsets().iter().all(|&(start, end)| start <= end));
        let _ = tokenizer.decode(encoding.ids(), false);
        let _ = tokenizer.decode(encoding.ids(), true);
    }
});
