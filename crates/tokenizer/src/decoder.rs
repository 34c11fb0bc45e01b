//! Tokens back into text.

/// How tokens are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// With spaces, as they are.
    Spaces,
    /// As WordPiece cut them: the prefix joins a token to the one before.
    WordPiece {
        prefix: String,
        /// Whether to take out the spaces that tokenizing put before punctuation and contractions.
        cleanup: bool,
    },
}

/// The names of the decoders that tokenizer.json may ask for.
pub(crate) const KNOWN: &str = "WordPiece, null";

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
