//! How long a text may be, who says so, and what happens to a longer one.

use std::path::Path;

use bertha_tokenizer::Direction;

use crate::TaskError;
use crate::json::JsonObject;

/// `transformers` writes 1e30 where a tokenizer has no limit.
const MOST_MEANINGFUL: f64 = 1e6;

/// Who set a limit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LimitSource {
    /// The caller (`max_length`).
    Caller,
    /// A file of the model folder.
    File { file: String, key: &'static str },
    /// The model has no more positions.
    Positions,
}

impl std::fmt::Display for LimitSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Caller => f.write_str("`max_length`, as asked"),
            Self::File { file, key } => write!(f, "`{key}` in {file}"),
            Self::Positions => f.write_str("the model's positions"),
        }
    }
}

/// The longest text in tokens, special tokens included.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) tokens: usize,
    pub(crate) source: LimitSource,
    /// Whether a longer text is cut; otherwise it is an error.
    pub(crate) truncate: bool,
}

impl Limit {
    /// The limit that holds: the caller's, else the model folder's, else the model's positions.
    ///
    /// A limit that somebody chose truncates unless told otherwise. Positions are nobody's choice: a
    /// longer text is an error unless truncation is asked for.
    pub(crate) fn resolve(
        asked: Option<usize>,
        truncate: Option<bool>,
        configured: Option<(usize, LimitSource)>,
        positions: usize,
    ) -> Result<Self, TaskError> {
        let (tokens, source) = match (asked, configured) {
            (Some(asked), _) if asked == 0 || asked > positions => {
                return Err(TaskError::InvalidOption {
                    option: "max_length",
                    found: asked.to_string(),
                    expected: format!("1 to {positions}, the model's positions"),
                });
            }
            (Some(asked), _) => (asked, LimitSource::Caller),
            (None, Some((tokens, source))) => (tokens.min(positions), source),
            (None, None) => (positions, LimitSource::Positions),
        };
        let truncate = truncate.unwrap_or(source != LimitSource::Positions);
        Ok(Self {
            tokens,
            source,
            truncate,
        })
    }

    /// Says that `cut` of `texts` texts were cut, where any were.
    pub(crate) fn warn_of(&self, cut: usize, texts: usize) {
        if cut > 0 {
            let reason = format!("longer than {} tokens ({})", self.tokens, self.source);
            let were = match texts {
                1 => "text was cut",
                _ => "texts were cut",
            };
            // The fields let a program that works in pieces add them up.
            tracing::warn!(cut, texts, reason, "{cut} of {texts} {were}: {reason}");
        }
    }

    /// The error for a text of `tokens` tokens.
    pub(crate) fn too_long(&self, index: usize, tokens: usize) -> TaskError {
        let remedy = match self.source {
            LimitSource::Positions => {
                "split the text, or ask for truncation with `truncate(true)` or `max_length`"
            }
            _ => "split the text, or allow truncation with `truncate(true)`",
        };
        TaskError::TooLong {
            index,
            tokens,
            limit: self.tokens,
            source_of_limit: self.source.to_string(),
            remedy,
        }
    }
}

/// `model_max_length` of the folder's tokenizer_config.json, where it has a meaningful one.
pub(crate) fn tokenizer_limit(dir: &Path) -> Result<Option<(usize, LimitSource)>, TaskError> {
    const KEY: &str = "model_max_length";
    let config = JsonObject::read_or_empty(dir.join("tokenizer_config.json"))?;
    let Some(value) = config.get(KEY) else {
        return Ok(None);
    };
    let source = LimitSource::File {
        file: config.file().display().to_string(),
        key: KEY,
    };
    match value.as_f64() {
        Some(limit) if limit > MOST_MEANINGFUL => Ok(None),
        Some(limit) if limit >= 1.0 => Ok(Some((limit as usize, source))),
        _ => Err(config.error(KEY, "a number from 1 up")),
    }
}

/// The side on which the folder's tokenizer_config.json has long texts cut, where it says so.
pub(crate) fn truncation_side(dir: &Path) -> Result<Option<Direction>, TaskError> {
    const KEY: &str = "truncation_side";
    let config = JsonObject::read_or_empty(dir.join("tokenizer_config.json"))?;
    match config.text(KEY)? {
        None => Ok(None),
        Some("right") => Ok(Some(Direction::Right)),
        Some("left") => Ok(Some(Direction::Left)),
        Some(_) => Err(config.error(KEY, "\"left\" or \"right\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> LimitSource {
        let file = "sentence_bert_config.json".into();
        let key = "max_seq_length";
        LimitSource::File { file, key }
    }

    #[test]
    fn who_sets_the_limit_decides_whether_it_truncates() {
        let limit = |asked, truncate, configured| {
            let limit = Limit::resolve(asked, truncate, configured, 512).unwrap();
            (limit.tokens, limit.truncate)
        };
        assert_eq!(limit(None, None, None), (512, false));
        assert_eq!(limit(None, Some(true), None), (512, true));
        assert_eq!(limit(None, None, Some((256, file()))), (256, true));
        assert_eq!(limit(None, None, Some((9999, file()))), (512, true));
        assert_eq!(limit(None, Some(false), Some((256, file()))), (256, false));
        assert_eq!(limit(Some(32), None, Some((256, file()))), (32, true));
        assert_eq!(limit(Some(300), None, Some((256, file()))), (300, true));
    }

    #[test]
    fn a_limit_beyond_the_positions_is_refused() {
        for asked in [0, 513] {
            let error = Limit::resolve(Some(asked), None, None, 512).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("max_length") && text.contains("1 to 512"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_text_too_long_names_text_tokens_limit_and_remedy() {
        let limit = Limit::resolve(None, None, None, 512).unwrap();
        let text = limit.too_long(7, 600).to_string();
        for part in ["text 7", "600 tokens", "512", "positions", "truncate(true)"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_tokenizers_limit_is_read_where_it_means_something() {
        let dir = tempfile::tempdir().unwrap();
        let read = |json: &str| {
            std::fs::write(dir.path().join("tokenizer_config.json"), json).unwrap();
            tokenizer_limit(dir.path()).map(|limit| limit.map(|(tokens, _)| tokens))
        };
        assert_eq!(read(r#"{"model_max_length": 384}"#).unwrap(), Some(384));
        assert_eq!(read(r#"{"model_max_length": 1e30}"#).unwrap(), None);
        let huge = r#"{"model_max_length": 1000000000000000019884624838656}"#;
        assert_eq!(read(huge).unwrap(), None);
        assert_eq!(read("{}").unwrap(), None);
        let error = read(r#"{"model_max_length": "long"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("model_max_length") && error.contains("long"),
            "{error}"
        );
        let error = read("[1]").unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json"), "{error}");
    }
}
