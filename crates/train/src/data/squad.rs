//! SQuAD's JSON, versions 1 and 2 (<https://rajpurkar.github.io/SQuAD-explorer/>).

use std::path::Path;

use serde::Deserialize;

use super::lines::TextFile;
use crate::TrainError;

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its id.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// The text that may hold the answer.
    pub context: String,
    /// The right answers; none where the context does not hold one.
    pub answers: Vec<GoldAnswer>,
}

/// An answer that a person marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldAnswer {
    /// Its words.
    pub text: String,
    /// Where they start in the context, in characters.
    pub start: usize,
}

impl GoldAnswer {
    /// Whether the context has these words at this place. (Data from elsewhere often counts otherwise.)
    pub fn is_at_its_place(&self, context: &str) -> bool {
        let byte = match self.start {
            0 => Some(0),
            start => context.char_indices().nth(start).map(|(byte, _)| byte),
        };
        byte.is_some_and(|byte| context[byte..].starts_with(&self.text))
    }
}

#[derive(Deserialize)]
struct FileFormat {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: Id,
    question: String,
    #[serde(default)]
    answers: Vec<Marked>,
    #[serde(default)]
    is_impossible: bool,
}

/// Most files have texts; some count.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

#[derive(Deserialize)]
struct Marked {
    text: String,
    answer_start: usize,
}

/// Reads questions, in the order of the file.
///
/// # Errors
/// [`TrainError::Io`] when the file cannot be read, [`TrainError::Line`] when it is not UTF-8, and
/// [`TrainError::Malformed`] when it is not SQuAD's JSON.
pub fn read_squad(path: impl AsRef<Path>) -> Result<Vec<Question>, TrainError> {
    let path = path.as_ref();
    let file = TextFile::read(path)?;
    let parsed: FileFormat =
        serde_json::from_str(file.as_str()).map_err(|error| TrainError::Malformed {
            path: path.to_path_buf(),
            found: error.to_string(),
            expected: "SQuAD's JSON: data[].paragraphs[] with `context` and `qas`".into(),
        })?;
    let mut questions = Vec::new();
    for paragraph in parsed
        .data
        .into_iter()
        .flat_map(|article| article.paragraphs)
    {
        for asked in paragraph.qas {
            let answers = match asked.is_impossible {
                true => Vec::new(),
                false => asked.answers,
            };
            let gold = |marked: Marked| GoldAnswer {
                text: marked.text,
                start: marked.answer_start,
            };
            questions.push(Question {
                id: match asked.id {
                    Id::Text(id) => id,
                    Id::Number(id) => id.to_string(),
                },
                question: asked.question,
                context: paragraph.context.clone(),
                answers: answers.into_iter().map(gold).collect(),
            });
        }
    }
    Ok(questions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Question>, TrainError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_squad(file.path())
    }

    #[test]
    fn both_versions_are_read() {
        let text = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [{
            "context": "Él nació en Perú.", "qas": [
            {"id": "a", "question": "Where?", "answers": [{"text": "Perú", "answer_start": 12}]},
            {"id": 7, "question": "When?", "answers": [], "is_impossible": true,
             "plausible_answers": [{"text": "Perú", "answer_start": 12}]}]}]}]}"#;
        let questions = read(text).unwrap();
        assert_eq!(questions.len(), 2);
        assert!(questions[0].answers[0].is_at_its_place(&questions[0].context));
        assert!(questions[1].answers.is_empty());
        assert_eq!(questions[1].id, "7");
    }

    #[test]
    fn places_are_counted_in_characters() {
        let answer = |start| GoldAnswer {
            text: "b".into(),
            start,
        };
        assert!(answer(1).is_at_its_place("éb"));
        assert!(!answer(2).is_at_its_place("éb"));
        assert!(!answer(usize::MAX).is_at_its_place("éb"));
    }

    #[test]
    fn other_json_is_refused() {
        let error = read(r#"{"data": [{"paragraphs": [{"qas": []}]}]}"#)
            .unwrap_err()
            .to_string();
        assert!(error.contains("context"), "{error}");
        assert!(read("[").is_err());
    }
}
