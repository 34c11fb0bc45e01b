//! Tokens back into text.

mod steps;

pub(crate) use steps::Step;

use std::borrow::Cow;

/// How tokens are joined.
#[derive(Debug, Clone)]
pub(crate) enum Decoder {
    /// With spaces, as they are.
    Spaces,
    /// As WordPiece cut them: the prefix joins a token to the one before.
    WordPiece {
        prefix: String,
        /// Whether to take out the spaces that tokenizing put before punctuation and contractions.
        cleanup: bool,
    },
    /// Steps one after the other over the list of tokens, which then stand side by side.
    Steps(Vec<Step>),
}

/// The names of the decoders that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "BPEDecoder, ByteFallback, ByteLevel, CTC, Fuse, Metaspace, Replace, Sequence, Strip, WordPiece, null";

/// What cleaning up replaces, one after the other.
const CLEANUP: [(&str, &str); 11] = [
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
];

impl Decoder {
    pub(crate) fn decode<'a>(&self, tokens: impl Iterator<Item = &'a str>) -> String {
        let mut text = String::new();
        match self {
            Self::Spaces => {
                for (i, token) in tokens.enumerate() {
                    if i > 0 {
                        text.push(' ');
                    }
                    text.push_str(token);
                }
            }
            Self::WordPiece { prefix, cleanup } => {
                for (i, token) in tokens.enumerate() {
                    let start = text.len();
                    match token.strip_prefix(prefix.as_str()) {
                        Some(rest) if i > 0 => text.push_str(rest),
                        _ => {
                            if i > 0 {
                                text.push(' ');
                            }
                            text.push_str(token);
                        }
                    }
                    if *cleanup {
                        clean_up(&mut text, start);
                    }
                }
            }
            Self::Steps(steps) => {
                let mut tokens: Vec<Cow<'_, str>> = tokens.map(Cow::Borrowed).collect();
                for step in steps {
                    step.apply(&mut tokens);
                }
                tokens.iter().for_each(|token| text.push_str(token));
            }
        }
        text
    }
}

/// Cleans the text from `start`, which is one token: a space and what follows it may be replaced.
fn clean_up(text: &mut String, start: usize) {
    let token = &text[start..];
    let concerned = token
        .bytes()
        .any(|byte| matches!(byte, b'.' | b'?' | b'!' | b',' | b'\''));
    if !concerned && !token.contains(" do not") {
        return;
    }
    let mut token = token.to_owned();
    for (from, to) in CLEANUP {
        if token.contains(from) {
            token = token.replace(from, to);
        }
    }
    text.truncate(start);
    text.push_str(&token);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &Decoder, tokens: &[&str]) -> String {
        decoder.decode(tokens.iter().copied())
    }

    #[test]
    fn word_pieces_join() {
        let decoder = Decoder::WordPiece {
            prefix: "##".into(),
            cleanup: false,
        };
        assert_eq!(
            decode(&decoder, &["##un", "##aff", "##able", "##", "!"]),
            "##unaffable !"
        );
        assert_eq!(decode(&decoder, &[]), "");
    }

    #[test]
    fn cleaning_goes_token_by_token() {
        let decoder = Decoder::WordPiece {
            prefix: "##".into(),
            cleanup: true,
        };
        assert_eq!(
            decode(&decoder, &["i", "'m", "here", ",", "it", "'", "s", "."]),
            "i'm here, it ' s."
        );
        // Contractions of two tokens are two replacements' business, of which each sees one token.
        assert_eq!(decode(&decoder, &["do", "not", "a b . c"]), "do not a b. c");
        assert_eq!(decode(&decoder, &["we", "do not", "'ve"]), "we don't've");
    }

    #[test]
    fn without_a_decoder_spaces_join() {
        assert_eq!(decode(&Decoder::Spaces, &["a", "##b", "."]), "a ##b .");
    }
}
