//! Texts and pairs of texts as examples: for classification, regression and masked language models.

use bertha_tensor::Tensor;
use bertha_tokenizer::{EncodeOptions, Input, Tokenizer};
use rayon::prelude::*;

use super::examples::{Examples, ExamplesBuilder, Labels};
use super::{LabelMap, Table};
use crate::TrainError;

/// Records tokenized at a time: enough for all threads, little enough to hold.
const CHUNK: usize = 4096;

/// Which columns of a table hold what, by name or number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns {
    /// The text, or the first of two.
    pub text: String,
    /// The second text.
    pub pair: Option<String>,
}

impl TextColumns {
    /// The columns' texts, as the tokenizer takes them.
    ///
    /// # Errors
    /// As [`Table::texts`].
    pub fn inputs<'t>(&self, table: &'t Table) -> Result<Vec<Input<'t>>, TrainError> {
        let first = table.texts(&self.text)?;
        let Some(pair) = &self.pair else {
            return Ok(first.into_iter().map(Input::Single).collect());
        };
        let both = first.into_iter().zip(table.texts(pair)?);
        Ok(both
            .map(|(first, second)| Input::Pair(first, second))
            .collect())
    }
}

/// Tokenizes texts, one example each, cut to `max_length` tokens (special tokens included); of a pair
/// the longer text is cut. They have no labels yet: see [`Examples::with_labels`].
///
/// # Errors
/// [`TrainError::Tokenize`] naming the first example that cannot be tokenized.
pub fn text_examples(
    tokenizer: &Tokenizer,
    inputs: &[Input<'_>],
    max_length: usize,
) -> Result<Examples, TrainError> {
    let options = EncodeOptions::truncated(max_length).overflow(false);
    let mut builder = ExamplesBuilder::default();
    tokenize(
        inputs,
        |_, &input| tokenizer.encode(input, &options),
        |source, _, encoding| {
            builder.encoding(&encoding, source, None);
            Ok(())
        },
    )?;
    builder.finish(Labels::None)
}

/// Tokenizes records on all threads and hands them on in their order.
pub(super) fn tokenize<R: Sync, T: Send>(
    records: &[R],
    encode: impl Fn(usize, &R) -> Result<T, bertha_tokenizer::TokenizerError> + Sync,
    mut take: impl FnMut(usize, &R, T) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    for (chunk, records) in records.chunks(CHUNK).enumerate() {
        let first = chunk * CHUNK;
        let encodings: Vec<_> = records
            .par_iter()
            .enumerate()
            .map(|(i, record)| encode(first + i, record))
            .collect();
        for ((i, record), encoding) in records.iter().enumerate().zip(encodings) {
            let example = first + i;
            let encoding = encoding.map_err(|source| TrainError::Tokenize { example, source })?;
            take(example, record, encoding)?;
        }
    }
    Ok(())
}

/// The labels of a column that holds one each, and the map that gives their numbers: the given one, or
/// that of the labels that occur.
///
/// # Errors
/// As [`Table::texts`], and [`TrainError::UnknownLabel`] for a label that the given map lacks.
pub fn class_labels(
    table: &Table,
    column: &str,
    given: Option<&LabelMap>,
) -> Result<(Labels, LabelMap), TrainError> {
    let texts = table.texts(column)?;
    let map = match given {
        Some(map) => map.clone(),
        None => LabelMap::discover(texts.iter().copied())?,
    };
    let classes: Vec<i32> = texts
        .iter()
        .enumerate()
        .map(|(example, text)| Ok(map.number_of(example, text)? as i32))
        .collect::<Result<_, TrainError>>()?;
    Ok((Labels::Classes(super::examples::vector(classes)?), map))
}

/// The labels of a column that holds several each (JSON lists, or texts split at `separator`).
///
/// # Errors
/// As [`class_labels`].
pub fn multi_labels(
    table: &Table,
    column: &str,
    separator: &str,
    given: Option<&LabelMap>,
) -> Result<(Labels, LabelMap), TrainError> {
    let lists = table.lists(column, separator)?;
    let map = match given {
        Some(map) => map.clone(),
        None => LabelMap::discover(lists.iter().flatten().map(String::as_str))?,
    };
    let mut values = vec![0u8; lists.len() * map.len()];
    for (example, list) in lists.iter().enumerate() {
        for label in list {
            let class = map.number_of(example, label)? as usize;
            values[example * map.len() + class] = 1;
        }
    }
    let values = Tensor::from_vec(values, &[lists.len(), map.len()])?;
    Ok((Labels::MultiLabel(values), map))
}

/// The numbers of columns, for regression.
///
/// # Errors
/// As [`Table::numbers`].
pub fn scores(table: &Table, columns: &[&str]) -> Result<Labels, TrainError> {
    let numbers = columns
        .iter()
        .map(|column| table.numbers(column))
        .collect::<Result<Vec<_>, _>>()?;
    let rows = (0..table.len()).flat_map(|row| numbers.iter().map(move |column| column[row]));
    let values: Vec<f32> = rows.collect();
    Ok(Labels::Scores(Tensor::from_vec(
        values,
        &[table.len(), columns.len()],
    )?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Format;
    use crate::data::examples::mark;
    use crate::data::test_tokenizer;

    fn table(text: &str) -> Table {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Table::read(file.path(), Format::Tsv { header: true }).unwrap()
    }

    #[test]
    fn pairs_have_types_and_marks() {
        let tokenizer = test_tokenizer();
        let table = table("a\tb\nthe cat sat\tthe dogs\n");
        let columns = TextColumns {
            text: "a".into(),
            pair: Some("b".into()),
        };
        let inputs = columns.inputs(&table).unwrap();
        let examples = text_examples(&tokenizer, &inputs, 16).unwrap();
        // [CLS] the cat sat [SEP] the dog ##s [SEP]
        assert_eq!(examples.types(0), [0, 0, 0, 0, 0, 1, 1, 1, 1]);
        let (s, c) = (mark::SPECIAL, mark::CONTINUES);
        assert_eq!(examples.marks(0), [s, 0, 0, 0, s, 0, 0, c, s]);
        let short = text_examples(&tokenizer, &inputs, 6).unwrap();
        assert_eq!(short.lengths(), [6]);
        assert!(text_examples(&tokenizer, &inputs, 2).is_err());
    }

    #[test]
    fn labels_are_found_or_given() {
        let table = table("t\tl\tm\tn\na\tpos\tx,y\t1.5\nb\tneg\t\t-2\n");
        let (labels, map) = class_labels(&table, "l", None).unwrap();
        assert_eq!(map.labels(), ["neg", "pos"]);
        let Labels::Classes(classes) = labels else {
            panic!("classes")
        };
        assert_eq!(classes.to_vec::<i32>().unwrap(), [1, 0]);
        let given = LabelMap::new(vec!["pos".into()]).unwrap();
        let error = class_labels(&table, "l", Some(&given))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("example 1") && error.contains("neg"),
            "{error}"
        );

        let (labels, map) = multi_labels(&table, "m", ",", None).unwrap();
        assert_eq!(map.labels(), ["x", "y"]);
        let Labels::MultiLabel(values) = labels else {
            panic!("several labels")
        };
        assert_eq!(values.to_vec::<u8>().unwrap(), [1, 1, 0, 0]);
        let Labels::Scores(values) = scores(&table, &["n"]).unwrap() else {
            panic!("scores")
        };
        assert_eq!(values.to_vec::<f32>().unwrap(), [1.5, -2.0]);
    }

    #[test]
    fn threads_do_not_change_examples() {
        let tokenizer = test_tokenizer();
        let texts: Vec<String> = (0..5000)
            .map(|i| ["the cat", "dogs sat on the mat", "unknown words"][i % 3].repeat(i % 4))
            .collect();
        let inputs: Vec<Input<'_>> = texts.iter().map(Input::from).collect();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| text_examples(&tokenizer, &inputs, 16).unwrap())
        };
        let (one, three) = (run(1), run(3));
        assert_eq!(one.lengths(), three.lengths());
        assert!((0..one.len()).all(|i| one.ids(i) == three.ids(i)));
    }
}
