//! Words are those that `tokenizers` will cut when the trained tokenizer is used.

use bertha_tokenizer::train::{TokenizerKind, TokenizerTrainer, WordCounts};

use crate::corpus::{counts, lines, their_words};

#[test]
fn words_are_those_of_the_tokenizer_to_be() {
    let mut texts = lines();
    texts.extend([
        "",
        " ",
        "  two  spaces\tand\u{a0}others\u{3000}\u{200b} ",
        "it's we'LL 'tis ''s x'd",
        "\u{2581}mark \u{1}control\u{7f} \u{fffd}\u{feff}",
        "ﬁne Å①²³ ½ ㎏ ＡＢＣ",
        "İstanbul ΑΣ ß ẞ",
        "a\r\nb\n\nc \n",
        "नमस्ते दुनिया สวัสดี ชาวโลก 你好，世界 한국어 кот",
        "Ⅷ Ⓐ ⅷ ⓐ 🅰 ٣٤ ௧",
    ]);
    for kind in TokenizerKind::ALL {
        for lowercase in [false, true] {
            let trainer = TokenizerTrainer::new(kind).lowercase(lowercase);
            for text in &texts {
                let theirs = their_words(kind, lowercase, text);
                let theirs: WordCounts = theirs.into_iter().map(|word| (word, 1)).collect();
                assert_eq!(
                    counts(&trainer, &[text]),
                    theirs,
                    "{kind:?} {lowercase} {text:?}"
                );
            }
        }
    }
}
