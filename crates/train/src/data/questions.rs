//! Extractive question answering: windows of question and context, with the answer's tokens.
//!
//! Windows are those that `bertha-tasks`' question answering reads, and answers are placed as
//! `transformers`' `run_qa` places them: a window that does not hold the whole answer is labelled with
//! its classifier token, which stands for "no answer here".

use bertha_tokenizer::{
    EncodeOptions, Encoding, OffsetKind, SpecialToken, Tokenizer, TokenizerError, Truncation,
    TruncationStrategy,
};

use super::Question;
use super::examples::{Examples, ExamplesBuilder, Labels};
use super::texts::tokenize;
use crate::TrainError;

/// How questions become examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionOptions {
    /// The longest window, question and special tokens included.
    pub max_length: usize,
    /// Tokens of context that a window repeats from the one before; by default 128, but at most half of
    /// `max_length` and less than what the question leaves.
    pub stride: Option<usize>,
    /// The longest question in tokens; a longer one is cut.
    pub max_question_length: usize,
    /// Whether questions are left out of which no answer is where the data says.
    pub drop_misplaced: bool,
}

impl Default for QuestionOptions {
    /// 384 tokens, questions of up to 64, misplaced answers left out.
    fn default() -> Self {
        Self {
            max_length: 384,
            stride: None,
            max_question_length: 64,
            drop_misplaced: true,
        }
    }
}

/// What [`question_examples`] gives.
#[derive(Clone, Debug)]
pub struct QuestionExamples {
    /// The windows; [`Examples::source`] is the number of the question, [`Examples::offsets`] where
    /// tokens stand in the context.
    pub examples: Examples,
    /// Questions left out because their answer is not where the data says, or they have no context.
    pub dropped: usize,
}

/// Tokenizes questions into windows. The label of each is the place of the question's first answer.
///
/// # Errors
/// [`TrainError::NoToken`] when the tokenizer has no classifier token, [`TrainError::Tokenize`] naming
/// the first question that leaves no room for the context.
pub fn question_examples(
    tokenizer: &Tokenizer,
    questions: &[Question],
    options: &QuestionOptions,
) -> Result<QuestionExamples, TrainError> {
    let Some((_, cls)) = tokenizer.special_token(SpecialToken::Cls) else {
        return Err(TrainError::NoToken {
            token: "classifier",
            task: "question answering",
        });
    };
    let mut builder = ExamplesBuilder::default();
    let mut spans: Vec<i32> = Vec::new();
    let mut dropped = 0;
    tokenize(
        questions,
        |_, question| windows(tokenizer, question, options),
        |source, question, mut encoding| {
            let answer = question.answers.first();
            let misplaced = answer.is_some_and(|answer| !answer.is_at_its_place(&question.context));
            let no_context = !encoding.sequence_ids().contains(&Some(1));
            if no_context || misplaced && options.drop_misplaced {
                dropped += 1;
                return Ok(());
            }
            let answer = answer.filter(|answer| !misplaced && !answer.text.is_empty());
            let answer = answer.map(|answer| {
                let end = answer.start + answer.text.chars().count();
                (answer.start as u32, end as u32)
            });
            let rest = encoding.take_overflowing();
            for window in std::iter::once(&encoding).chain(&rest) {
                builder.encoding(window, source, None);
                let context = |i: usize| window.sequence_ids()[i] == Some(1);
                builder.offsets((0..window.len()).map(|i| context(i).then(|| window.offsets()[i])));
                let none = window.ids().iter().position(|&id| id == cls).unwrap_or(0);
                let (first, last) = answer
                    .and_then(|answer| place(window, answer))
                    .unwrap_or((none, none));
                spans.extend([first as i32, last as i32]);
            }
            Ok(())
        },
    )?;
    if dropped > 0 {
        tracing::warn!("{dropped} questions are left out: their answer is not where the data says");
    }
    let count = spans.len() / 2;
    let spans = match count {
        0 => bertha_tensor::Tensor::zeros(bertha_tensor::DType::I32, &[0, 2])?,
        _ => bertha_tensor::Tensor::from_vec(spans, &[count, 2])?,
    };
    Ok(QuestionExamples {
        examples: builder.finish(Labels::Spans(spans))?,
        dropped,
    })
}

/// Question and context in as many windows as they need, offsets in characters.
fn windows(
    tokenizer: &Tokenizer,
    asked: &Question,
    options: &QuestionOptions,
) -> Result<Encoding, TokenizerError> {
    let bytes = EncodeOptions::default()
        .special_tokens(false)
        .offsets(OffsetKind::Bytes);
    let question = tokenizer.encode(&asked.question, &bytes)?;
    let limit = options.max_question_length.max(1);
    // WordPiece takes the longest piece first: what is before a cut is cut into the same pieces again.
    let text = match question.len() > limit {
        true => {
            let end = question.offsets()[limit - 1].1 as usize;
            asked.question.get(..end).unwrap_or(&asked.question)
        }
        false => &asked.question,
    };
    let fixed = question.len().min(limit) + tokenizer.num_special_tokens(true);
    let room = options.max_length.saturating_sub(fixed);
    let stride = options.stride.unwrap_or(128.min(options.max_length / 2));
    let truncation = Truncation::new(options.max_length)
        .strategy(TruncationStrategy::OnlySecond)
        .stride(stride.min(room.saturating_sub(1)));
    let encode = EncodeOptions::default().truncation(Some(truncation));
    tokenizer.encode((text, asked.context.as_str()), &encode)
}

/// The tokens of a window that hold the characters from `start` to `end` of the context, if all are there.
fn place(window: &Encoding, (start, end): (u32, u32)) -> Option<(usize, usize)> {
    let offsets = window.offsets();
    let mut context = (0..window.len()).filter(|&i| window.sequence_ids()[i] == Some(1));
    let first = context.next()?;
    let last = context.next_back().unwrap_or(first);
    if offsets[first].0 > start || offsets[last].1 < end {
        return None;
    }
    let start = (first..=last).rev().find(|&i| offsets[i].0 <= start)?;
    let end = (first..=last).find(|&i| offsets[i].1 >= end)?;
    // Characters that are of no token can put one before the other.
    (start <= end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::GoldAnswer;
    use crate::data::test_tokenizer;

    fn question(context: &str, answer: Option<(&str, usize)>) -> Question {
        Question {
            id: "q".into(),
            question: "who sat?".into(),
            context: context.into(),
            answers: answer
                .map(|(text, start)| GoldAnswer {
                    text: text.into(),
                    start,
                })
                .into_iter()
                .collect(),
        }
    }

    fn examples(question: Question, max_length: usize, stride: usize) -> QuestionExamples {
        let options = QuestionOptions {
            max_length,
            stride: Some(stride),
            ..QuestionOptions::default()
        };
        question_examples(&test_tokenizer(), &[question], &options).unwrap()
    }

    #[test]
    fn the_answers_tokens_are_found() {
        // [CLS] who sat ? [SEP] the dog ##s sat on the mat [SEP]
        let found = examples(
            question("the dogs sat on the mat", Some(("the dogs", 0))),
            32,
            0,
        );
        assert_eq!(found.examples.span(0), Some((5, 7)));
        // The last token of the context can hold the answer.
        let found = examples(
            question("the dogs sat on the mat", Some(("mat", 20))),
            32,
            0,
        );
        assert_eq!(found.examples.span(0), Some((11, 11)));
        let offsets = found.examples.offsets(0).unwrap();
        assert_eq!(offsets[4], None);
        assert_eq!(offsets[7], Some((7, 8)));
        // A part of a token is the token.
        let found = examples(question("the dogs sat", Some(("og", 5))), 32, 0);
        assert_eq!(found.examples.span(0), Some((6, 6)));
    }

    #[test]
    fn windows_without_the_answer_point_at_the_classifier_token() {
        // Windows of three context tokens, one repeated: the dog ##s | ##s sat on | on the mat
        let found = examples(
            question("the dogs sat on the mat", Some(("sat on", 9))),
            9,
            1,
        );
        let spans: Vec<_> = (0..found.examples.len())
            .map(|i| found.examples.span(i).unwrap())
            .collect();
        assert_eq!(spans, [(0, 0), (6, 7), (0, 0)]);
        assert_eq!(found.examples.source(2), 0);
        let found = examples(question("the dogs sat", None), 32, 0);
        assert_eq!(found.examples.span(0), Some((0, 0)));
    }

    #[test]
    fn misplaced_answers_are_left_out() {
        let found = examples(question("the dogs sat", Some(("cats", 4))), 32, 0);
        assert_eq!((found.examples.len(), found.dropped), (0, 1));
        let keep = QuestionOptions {
            drop_misplaced: false,
            ..QuestionOptions::default()
        };
        let asked = [question("the dogs sat", Some(("cats", 4)))];
        let found = question_examples(&test_tokenizer(), &asked, &keep).unwrap();
        assert_eq!(found.examples.span(0), Some((0, 0)));
        let found = examples(question(" ", None), 32, 0);
        assert_eq!(found.dropped, 1);
    }

    #[test]
    fn a_question_that_leaves_no_room_is_named() {
        let options = QuestionOptions {
            max_length: 6,
            ..QuestionOptions::default()
        };
        let asked = [question("the dogs sat", None)];
        let error = question_examples(&test_tokenizer(), &asked, &options).unwrap_err();
        assert!(error.to_string().contains("example 0"), "{error}");
        let cut = QuestionOptions {
            max_length: 6,
            max_question_length: 1,
            ..QuestionOptions::default()
        };
        let found = question_examples(&test_tokenizer(), &asked, &cut).unwrap();
        assert_eq!(found.examples.lengths()[0], 6);
    }
}
