//! Tokenized examples, packed end to end.

use std::ops::Range;

use bertha_tensor::{Element, Tensor};
use bertha_tokenizer::Encoding;

use super::cache::Cacheable;
use crate::TrainError;

/// The label of tokens that have none; losses leave them out.
pub const IGNORED: i32 = -100;

/// What is known of a token besides its id: a sum of these.
pub mod mark {
    /// The tokenizer's template added it (`[CLS]`, `[SEP]`): never masked, never labelled.
    pub const SPECIAL: u8 = 1;
    /// It goes on with the word of the token before it.
    pub const CONTINUES: u8 = 2;
    /// It is the first of a word as the data gives words (token classification).
    pub const WORD_START: u8 = 4;
}

/// What a model is to say about examples. `n` examples of `T` tokens together.
#[derive(Clone, Debug)]
pub enum Labels {
    /// Nothing: the task makes its own labels, as masking does.
    None,
    /// One class of each example: i32 `[n]`.
    Classes(Tensor),
    /// For each example and class 1 or 0: u8 `[n, classes]`.
    MultiLabel(Tensor),
    /// Numbers for each example: f32 `[n, numbers]`.
    Scores(Tensor),
    /// One class of each token, [`IGNORED`] for none: i32 `[T]`.
    Tokens(Tensor),
    /// First and last token of the answer, counted in the example: i32 `[n, 2]`.
    Spans(Tensor),
}

/// Examples of `T` tokens together, in an order of their own, kept in memory or mapped from a cache.
#[derive(Clone, Debug)]
pub struct Examples {
    /// i32 `[T]`.
    ids: Tensor,
    /// u8 `[T]`.
    types: Tensor,
    /// u8 `[T]`, sums of [`mark`]s.
    marks: Tensor,
    /// i64 `[n+1]`.
    starts: Tensor,
    /// i32 `[n]`: the record of the data that each came from.
    sources: Tensor,
    /// i32 `[T, 2]`: where the tokens of a question's context stand in it, in characters; -1 for others.
    offsets: Option<Tensor>,
    labels: Labels,
}

impl Examples {
    /// Number of examples (n).
    pub fn len(&self) -> usize {
        self.sources.numel()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of tokens (T).
    pub fn tokens(&self) -> usize {
        self.ids.numel()
    }

    /// The tokens of an example, as a range of all.
    ///
    /// # Panics
    /// This and all that take an index: when there is no such example.
    pub fn range(&self, example: usize) -> Range<usize> {
        let starts = slice::<i64>(&self.starts);
        starts[example] as usize..starts[example + 1] as usize
    }

    /// Number of tokens of each example.
    pub fn lengths(&self) -> Vec<u32> {
        let starts = slice::<i64>(&self.starts);
        starts
            .windows(2)
            .map(|ends| (ends[1] - ends[0]) as u32)
            .collect()
    }

    /// An example's token ids.
    pub fn ids(&self, example: usize) -> &[i32] {
        &slice(&self.ids)[self.range(example)]
    }

    /// An example's token types.
    pub fn types(&self, example: usize) -> &[u8] {
        &slice(&self.types)[self.range(example)]
    }

    /// An example's tokens' [`mark`]s.
    pub fn marks(&self, example: usize) -> &[u8] {
        &slice(&self.marks)[self.range(example)]
    }

    /// The record of the data that an example came from; long records make several examples.
    pub fn source(&self, example: usize) -> usize {
        slice::<i32>(&self.sources)[example] as usize
    }

    /// Where a question's context tokens stand in the context, in characters; `None` for other tokens.
    /// Nothing for other tasks.
    pub fn offsets(&self, example: usize) -> Option<Vec<Option<(u32, u32)>>> {
        let offsets = slice::<i32>(self.offsets.as_ref()?);
        let (pairs, _) = offsets.as_chunks::<2>();
        let pair =
            |&[start, end]: &[i32; 2]| Some((u32::try_from(start).ok()?, u32::try_from(end).ok()?));
        Some(pairs[self.range(example)].iter().map(pair).collect())
    }

    /// All labels.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// An example's class, if examples have one.
    pub fn class(&self, example: usize) -> Option<i32> {
        match &self.labels {
            Labels::Classes(classes) => Some(slice::<i32>(classes)[example]),
            _ => None,
        }
    }

    /// An example's tokens' classes, if tokens have them.
    pub fn token_labels(&self, example: usize) -> Option<&[i32]> {
        match &self.labels {
            Labels::Tokens(labels) => Some(&slice::<i32>(labels)[self.range(example)]),
            _ => None,
        }
    }

    /// First and last token of an example's answer, if examples have one.
    pub fn span(&self, example: usize) -> Option<(u32, u32)> {
        match &self.labels {
            Labels::Spans(spans) => {
                let span = &slice::<i32>(spans)[2 * example..][..2];
                Some((span[0] as u32, span[1] as u32))
            }
            _ => None,
        }
    }

    /// The same examples with other labels.
    ///
    /// # Errors
    /// [`TrainError::Count`] when they are not as many as the examples, or as the tokens;
    /// [`TrainError::Labels`] when they are of another type than [`Labels`] says.
    pub fn with_labels(mut self, labels: Labels) -> Result<Self, TrainError> {
        self.labels = labels;
        self.check()?;
        Ok(self)
    }

    /// The same examples, each with its class.
    ///
    /// # Errors
    /// As [`Examples::with_labels`].
    pub fn with_classes(self, classes: &[u32]) -> Result<Self, TrainError> {
        let classes: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
        let shape = [classes.len()];
        self.with_labels(Labels::Classes(Tensor::from_vec(classes, &shape)?))
    }

    /// That the parts fit together, whoever made them.
    fn check(&self) -> Result<(), TrainError> {
        let (n, t) = (self.len(), self.tokens());
        expect::<i32>("token ids", &self.ids, &[t])?;
        expect::<u8>("token types", &self.types, &[t])?;
        expect::<u8>("token marks", &self.marks, &[t])?;
        expect::<i64>("starts of examples", &self.starts, &[n + 1])?;
        expect::<i32>("sources of examples", &self.sources, &[n])?;
        if let Some(offsets) = &self.offsets {
            expect::<i32>("offsets of tokens", offsets, &[t, 2])?;
        }
        let starts = slice::<i64>(&self.starts);
        // An example has a token: no batch takes an empty one.
        let rising = starts
            .windows(2)
            .all(|pair| pair[0] < pair[1] && pair[1] - pair[0] < 1 << 31);
        if starts[0] != 0 || starts[n] != t as i64 || !rising {
            return Err(TrainError::Labels(format!(
                "the starts of {n} examples do not rise from 0 to {t}"
            )));
        }
        match &self.labels {
            Labels::None => Ok(()),
            Labels::Classes(classes) => expect::<i32>("classes", classes, &[n]),
            Labels::MultiLabel(values) => {
                let classes = values.shape().last().copied().unwrap_or(0);
                expect::<u8>("labels of several classes", values, &[n, classes])
            }
            Labels::Scores(values) => {
                let numbers = values.shape().last().copied().unwrap_or(0);
                expect::<f32>("scores", values, &[n, numbers])
            }
            Labels::Tokens(labels) => expect::<i32>("labels of tokens", labels, &[t]),
            Labels::Spans(spans) => {
                expect::<i32>("answer spans", spans, &[n, 2])?;
                let (spans, _) = slice::<i32>(spans).as_chunks::<2>();
                let wrong = spans.iter().enumerate().find(|&(i, &[first, last])| {
                    let tokens = (starts[i + 1] - starts[i]) as i32;
                    first < 0 || last < first || last >= tokens
                });
                match wrong {
                    None => Ok(()),
                    Some((example, span)) => Err(TrainError::Example {
                        example,
                        found: format!("an answer of tokens {span:?}"),
                        expected: format!("a span of its {} tokens", self.range(example).len()),
                    }),
                }
            }
        }
    }
}

/// Refuses a tensor of another type or shape. What passed it can be read as a slice.
fn expect<T: Element>(
    what: &'static str,
    tensor: &Tensor,
    shape: &[usize],
) -> Result<(), TrainError> {
    tensor.as_slice::<T>()?;
    if tensor.shape() != shape {
        return Err(TrainError::Count {
            what,
            found: tensor.numel(),
            expected: shape.iter().product(),
        });
    }
    Ok(())
}

/// The elements of a tensor that [`expect`] saw.
fn slice<T: Element>(tensor: &Tensor) -> &[T] {
    tensor
        .as_slice()
        .expect("type and layout were checked when the examples were made")
}

impl Cacheable for Examples {
    const KIND: &'static str = "examples";

    fn tensors(&self) -> Vec<(&'static str, Tensor)> {
        let mut tensors = vec![
            ("ids", self.ids.clone()),
            ("types", self.types.clone()),
            ("marks", self.marks.clone()),
            ("starts", self.starts.clone()),
            ("sources", self.sources.clone()),
        ];
        if let Some(offsets) = &self.offsets {
            tensors.push(("offsets", offsets.clone()));
        }
        match &self.labels {
            Labels::None => {}
            Labels::Classes(tensor) => tensors.push(("classes", tensor.clone())),
            Labels::MultiLabel(tensor) => tensors.push(("multi_label", tensor.clone())),
            Labels::Scores(tensor) => tensors.push(("scores", tensor.clone())),
            Labels::Tokens(tensor) => tensors.push(("token_labels", tensor.clone())),
            Labels::Spans(tensor) => tensors.push(("spans", tensor.clone())),
        }
        tensors
    }

    fn from_tensors(get: &dyn Fn(&str) -> Option<Tensor>) -> Result<Self, TrainError> {
        let need = |name: &'static str| {
            get(name).ok_or_else(|| TrainError::Labels(format!("there is no tensor `{name}`")))
        };
        type Kind = (&'static str, fn(Tensor) -> Labels);
        let kinds: [Kind; 5] = [
            ("classes", Labels::Classes),
            ("multi_label", Labels::MultiLabel),
            ("scores", Labels::Scores),
            ("token_labels", Labels::Tokens),
            ("spans", Labels::Spans),
        ];
        let labels = kinds.iter().find_map(|(name, make)| get(name).map(make));
        let examples = Self {
            ids: need("ids")?,
            types: need("types")?,
            marks: need("marks")?,
            starts: need("starts")?,
            sources: need("sources")?,
            offsets: get("offsets"),
            labels: labels.unwrap_or(Labels::None),
        };
        examples.check()?;
        Ok(examples)
    }
}

/// Gathers examples.
#[derive(Debug, Default)]
pub(crate) struct ExamplesBuilder {
    ids: Vec<i32>,
    types: Vec<u8>,
    marks: Vec<u8>,
    starts: Vec<i64>,
    sources: Vec<i32>,
    offsets: Vec<i32>,
}

impl ExamplesBuilder {
    /// Number of tokens so far.
    pub(crate) fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The marks of all tokens so far.
    pub(crate) fn marks(&self) -> &[u8] {
        &self.marks
    }

    /// Adds a mark to a token.
    pub(crate) fn add_mark(&mut self, token: usize, added: u8) {
        self.marks[token] |= added;
    }

    /// Adds a token to the example that [`ExamplesBuilder::end`] will end.
    pub(crate) fn token(&mut self, id: i32, kind: u8, marks: u8) {
        self.ids.push(id);
        self.types.push(kind);
        self.marks.push(marks);
    }

    /// Ends an example. Without a token since the last one there is none.
    pub(crate) fn end(&mut self, source: usize) {
        let start = self.starts.last().copied().unwrap_or(0);
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        if self.ids.len() as i64 > start {
            self.starts.push(self.ids.len() as i64);
            self.sources.push(source as i32);
        }
    }

    /// Adds an encoding as an example. `before` is the word of the token before it, which a window of a
    /// longer text goes on from; gives the word of the last token.
    pub(crate) fn encoding(
        &mut self,
        encoding: &Encoding,
        source: usize,
        mut before: Option<(u8, u32)>,
    ) -> Option<(u8, u32)> {
        for (i, &special) in encoding.special_tokens_mask().iter().enumerate() {
            let word = encoding.sequence_ids()[i].zip(encoding.word_ids()[i]);
            let mut marks = 0;
            if special {
                marks |= mark::SPECIAL;
            } else {
                if word.is_some() && word == before {
                    marks |= mark::CONTINUES;
                }
                before = word;
            }
            self.token(
                encoding.ids()[i] as i32,
                encoding.type_ids()[i] as u8,
                marks,
            );
        }
        self.end(source);
        before
    }

    /// Adds the offsets of the last example's tokens.
    pub(crate) fn offsets(&mut self, offsets: impl Iterator<Item = Option<(u32, u32)>>) {
        for pair in offsets {
            let (start, end) = pair.map_or((-1, -1), |(start, end)| (start as i32, end as i32));
            self.offsets.extend([start, end]);
        }
    }

    /// The examples, with the labels that `labels` makes.
    pub(crate) fn finish(mut self, labels: Labels) -> Result<Examples, TrainError> {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        let offsets = match self.offsets.is_empty() {
            true => None,
            false => Some(Tensor::from_vec(self.offsets, &[self.ids.len(), 2])?),
        };
        let examples = Examples {
            ids: vector(self.ids)?,
            types: vector(self.types)?,
            marks: vector(self.marks)?,
            starts: vector(self.starts)?,
            sources: vector(self.sources)?,
            offsets,
            labels,
        };
        examples.check()?;
        Ok(examples)
    }
}

/// A tensor of one dimension.
pub(crate) fn vector<T: Element>(values: Vec<T>) -> Result<Tensor, TrainError> {
    let shape = [values.len()];
    match values.is_empty() {
        true => Ok(Tensor::zeros(T::DTYPE, &shape)?),
        false => Ok(Tensor::from_vec(values, &shape)?),
    }
}

#[cfg(test)]
mod tests {
    use bertha_tensor::DType;

    use super::*;

    fn two() -> ExamplesBuilder {
        let mut builder = ExamplesBuilder::default();
        for id in [2, 7, 3] {
            builder.token(id, 0, 0);
        }
        builder.end(0);
        builder.end(0);
        builder.token(9, 1, mark::SPECIAL);
        builder.end(4);
        builder
    }

    #[test]
    fn examples_lie_end_to_end() {
        let examples = two().finish(Labels::None).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples.tokens(), 4);
        assert_eq!(examples.ids(0), [2, 7, 3]);
        assert_eq!(examples.types(1), [1]);
        assert_eq!(examples.marks(1), [mark::SPECIAL]);
        assert_eq!(examples.lengths(), [3, 1]);
        assert_eq!(examples.source(1), 4);
        assert!(examples.offsets(0).is_none());
        let none = ExamplesBuilder::default().finish(Labels::None).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn labels_must_fit() {
        let examples = || two().finish(Labels::None).unwrap();
        let classed = examples().with_classes(&[1, 0]).unwrap();
        assert_eq!(classed.class(0), Some(1));
        let error = examples().with_classes(&[1]).unwrap_err().to_string();
        assert!(error.contains("classes: 1 values, expected 2"), "{error}");
        let spans = |values: Vec<i32>| {
            examples().with_labels(Labels::Spans(Tensor::from_vec(values, &[2, 2]).unwrap()))
        };
        assert_eq!(spans(vec![1, 2, 0, 0]).unwrap().span(0), Some((1, 2)));
        for bad in [vec![1, 2, 0, 1], vec![2, 1, 0, 0], vec![-1, 0, 0, 0]] {
            spans(bad).unwrap_err();
        }
        let wrong_type = Tensor::zeros(DType::F32, &[4]).unwrap();
        assert!(examples().with_labels(Labels::Tokens(wrong_type)).is_err());
    }
}
