//! Batches as a training step takes them: packed sequences and what the model is to say of them.

use bertha_nn::Batch;

use super::{Masked, Masker};
use crate::TrainError;
use crate::data::{Examples, Labels};
use crate::random::{Seed, Stream};

/// What a model is to say of a batch of `B` sequences and `T` tokens.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Nothing.
    None,
    /// The class of each sequence, `[B]`.
    Classes(Vec<u32>),
    /// 1 or 0 for each sequence and class, `[B, classes]`.
    MultiLabel {
        /// Number of classes.
        classes: usize,
        /// The values, row-major.
        values: Vec<f32>,
    },
    /// Numbers for each sequence, `[B, numbers]`.
    Scores {
        /// How many each has.
        numbers: usize,
        /// The values, row-major.
        values: Vec<f32>,
    },
    /// The class of each token, `[T]`, -100 for those that have none.
    Tokens(Vec<i32>),
    /// First and last token of each sequence's answer, counted in the sequence, `[B]` both.
    Spans {
        /// The first tokens.
        starts: Vec<u32>,
        /// The last tokens.
        ends: Vec<u32>,
    },
    /// The tokens to be guessed (masked language modelling), M of them.
    Masked {
        /// Their packed rows, rising, `[M]`.
        rows: Vec<u32>,
        /// What they were, `[M]`.
        ids: Vec<u32>,
        /// The class of each sequence (NSP, SOP), `[B]`, where examples have one.
        classes: Option<Vec<u32>>,
    },
}

/// One batch of training or evaluation.
#[derive(Clone, Debug)]
pub struct TrainingBatch {
    /// The sequences, end to end, masked where the task masks.
    pub batch: Batch,
    /// What is to be said of them.
    pub targets: Targets,
    /// The number of each sequence's example, `[B]`.
    pub examples: Vec<u32>,
}

impl TrainingBatch {
    /// What the sum of the losses is divided by: labelled sequences, tokens, or masked tokens. Over
    /// several batches the sums are added and divided by the sum of these.
    pub fn loss_terms(&self) -> usize {
        match &self.targets {
            Targets::None => 0,
            Targets::Tokens(labels) => labels.iter().filter(|&&label| label >= 0).count(),
            Targets::Masked { rows, .. } => rows.len(),
            Targets::Classes(_)
            | Targets::MultiLabel { .. }
            | Targets::Scores { .. }
            | Targets::Spans { .. } => self.examples.len(),
        }
    }
}

/// Puts examples into a batch. With a masker, tokens are masked: example by example, each from the
/// random numbers of its own number and the epoch, so that neither its neighbours nor the order matter.
///
/// # Errors
/// [`TrainError::Example`] when there is no example of a number, or it has no usable label.
pub fn collate(
    examples: &Examples,
    numbers: &[u32],
    masking: Option<(&Masker, Seed, u32)>,
) -> Result<TrainingBatch, TrainError> {
    let mut batch = Batch::new();
    let mut targets = empty_targets(examples, masking.is_some(), numbers.len());
    let (mut ids, mut types): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    for &number in numbers {
        let example = number as usize;
        if example >= examples.len() {
            return Err(TrainError::Example {
                example,
                found: "a number beyond the data".into(),
                expected: format!("one below {}", examples.len()),
            });
        }
        ids.clear();
        ids.extend(examples.ids(example).iter().map(|&id| id as u32));
        types.clear();
        types.extend(examples.types(example).iter().map(|&kind| u32::from(kind)));
        let masked = masking.map(|(masker, seed, epoch)| {
            let mut rng = seed.rng(Stream::Mask, u64::from(number), epoch);
            masker.mask(&mut ids, examples.marks(example), &mut rng)
        });
        let row = batch.tokens() as u32;
        batch.push(&ids, Some(&types))?;
        add_targets(&mut targets, examples, example, row, masked)?;
    }
    Ok(TrainingBatch {
        batch,
        targets,
        examples: numbers.to_vec(),
    })
}

fn empty_targets(examples: &Examples, masked: bool, sequences: usize) -> Targets {
    let width = |shape: &[usize]| shape.last().copied().unwrap_or(0);
    match examples.labels() {
        labels if masked => Targets::Masked {
            rows: Vec::new(),
            ids: Vec::new(),
            classes: matches!(labels, Labels::Classes(_)).then(Vec::new),
        },
        Labels::None => Targets::None,
        Labels::Classes(_) => Targets::Classes(Vec::with_capacity(sequences)),
        Labels::MultiLabel(values) => Targets::MultiLabel {
            classes: width(values.shape()),
            values: Vec::new(),
        },
        Labels::Scores(values) => Targets::Scores {
            numbers: width(values.shape()),
            values: Vec::new(),
        },
        Labels::Tokens(_) => Targets::Tokens(Vec::new()),
        Labels::Spans(_) => Targets::Spans {
            starts: Vec::new(),
            ends: Vec::new(),
        },
    }
}

/// Adds the targets of one example, whose first token is at `row`.
fn add_targets(
    targets: &mut Targets,
    examples: &Examples,
    example: usize,
    row: u32,
    masked: Option<Vec<Masked>>,
) -> Result<(), TrainError> {
    let class = || {
        let class = examples.class(example).unwrap_or(-1);
        u32::try_from(class).map_err(|_| TrainError::Example {
            example,
            found: format!("the class {class}"),
            expected: "a class from 0".into(),
        })
    };
    match (targets, examples.labels()) {
        (Targets::Masked { rows, ids, classes }, _) => {
            let masked = masked.unwrap_or_default();
            rows.extend(masked.iter().map(|masked| row + masked.place));
            ids.extend(masked.iter().map(|masked| masked.id));
            if let Some(classes) = classes {
                classes.push(class()?);
            }
        }
        (Targets::Classes(classes), _) => classes.push(class()?),
        (Targets::MultiLabel { classes, values }, Labels::MultiLabel(all)) => {
            let all = &all.as_slice::<u8>()?[example * *classes..][..*classes];
            values.extend(all.iter().map(|&value| f32::from(value)));
        }
        (Targets::Scores { numbers, values }, Labels::Scores(all)) => {
            values.extend(&all.as_slice::<f32>()?[example * *numbers..][..*numbers]);
        }
        (Targets::Tokens(labels), _) => {
            labels.extend(examples.token_labels(example).unwrap_or_default());
        }
        (Targets::Spans { starts, ends }, _) => {
            let (start, end) = examples.span(example).unwrap_or_default();
            starts.push(start);
            ends.push(end);
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bertha_tensor::Tensor;
    use bertha_tokenizer::Input;
    use rayon::prelude::*;

    use super::*;
    use crate::collate::MaskingOptions;
    use crate::data::{test_tokenizer, text_examples};

    fn examples() -> Examples {
        let texts: Vec<String> = (1..40)
            .map(|i| "the cat sat on the mat. ".repeat(i % 5 + 1))
            .collect();
        let inputs: Vec<Input<'_>> = texts.iter().map(Input::from).collect();
        text_examples(&test_tokenizer(), &inputs, 32).unwrap()
    }

    #[test]
    fn sequences_are_packed_with_their_labels() {
        let count = examples().len();
        let classes: Vec<u32> = (0..count as u32).collect();
        let examples = examples().with_classes(&classes).unwrap();
        let batch = collate(&examples, &[3, 0], None).unwrap();
        assert_eq!(batch.targets, Targets::Classes(vec![3, 0]));
        assert_eq!(batch.loss_terms(), 2);
        let lengths = examples.lengths();
        assert_eq!(
            batch.batch.cu_seqlens(),
            [0, lengths[3], lengths[3] + lengths[0]]
        );
        let ids: Vec<i32> = batch
            .batch
            .input_ids()
            .iter()
            .map(|&id| id as i32)
            .collect();
        assert_eq!(ids[..lengths[3] as usize], *examples.ids(3));
        assert!(collate(&examples, &[99], None).is_err());
    }

    #[test]
    fn every_kind_of_label_is_gathered() {
        let count = examples().len();
        let values: Vec<u8> = (0..2 * count).map(|i| (i % 2) as u8).collect();
        let labels = Labels::MultiLabel(Tensor::from_vec(values, &[count, 2]).unwrap());
        let batch = collate(&examples().with_labels(labels).unwrap(), &[1], None).unwrap();
        let (classes, values) = (2, vec![0.0, 1.0]);
        assert_eq!(batch.targets, Targets::MultiLabel { classes, values });

        let scores: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let labels = Labels::Scores(Tensor::from_vec(scores, &[count, 1]).unwrap());
        let batch = collate(&examples().with_labels(labels).unwrap(), &[5, 6], None).unwrap();
        let (numbers, values) = (1, vec![5.0, 6.0]);
        assert_eq!(batch.targets, Targets::Scores { numbers, values });

        let tokens = examples().tokens();
        let labels: Vec<i32> = (0..tokens as i32)
            .map(|i| if i == 0 { -100 } else { i })
            .collect();
        let labels = Labels::Tokens(Tensor::from_vec(labels, &[tokens]).unwrap());
        let batch = collate(&examples().with_labels(labels).unwrap(), &[0], None).unwrap();
        assert_eq!(batch.loss_terms(), examples().lengths()[0] as usize - 1);

        let spans: Vec<i32> = (0..count).flat_map(|_| [1, 2]).collect();
        let labels = Labels::Spans(Tensor::from_vec(spans, &[count, 2]).unwrap());
        let batch = collate(&examples().with_labels(labels).unwrap(), &[0, 1], None).unwrap();
        let (starts, ends) = (vec![1, 1], vec![2, 2]);
        assert_eq!(batch.targets, Targets::Spans { starts, ends });
    }

    #[test]
    fn masks_do_not_depend_on_neighbours_or_threads() {
        let examples = examples();
        let masker = Masker::new(&test_tokenizer(), MaskingOptions::default()).unwrap();
        let masking = Some((&masker, Seed::new(1), 0));
        let both = collate(&examples, &[4, 9], masking).unwrap();
        let one = collate(&examples, &[9], masking).unwrap();
        let start = both.batch.cu_seqlens()[1] as usize;
        assert_eq!(both.batch.input_ids()[start..], *one.batch.input_ids());
        let Targets::Masked { rows, ids, classes } = &both.targets else {
            panic!("masked tokens")
        };
        assert!(classes.is_none() && rows.is_sorted());
        assert_eq!(rows.len(), ids.len());
        for (&row, &id) in rows.iter().zip(ids) {
            let plain = collate(&examples, &[4, 9], None).unwrap();
            assert_eq!(plain.batch.input_ids()[row as usize], id);
        }
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                (0..30u32)
                    .into_par_iter()
                    .map(|i| {
                        collate(&examples, &[i, i + 1], masking)
                            .unwrap()
                            .batch
                            .input_ids()
                            .to_vec()
                    })
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(run(1), run(3));
    }
}
