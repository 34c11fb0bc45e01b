//! Softmax cross-entropy.

use crate::Exec;
use crate::exec::SharedMut;
use crate::simd::reduce::{Terms, total};
use crate::simd::{Kernel, Simd};
use crate::softmax::{Powers, max};

/// About the operations a logit takes, for sharing rows among threads.
const WORK: usize = 8;

/// A class for each row.
#[derive(Clone, Copy, Debug)]
pub enum Labels<'a> {
    /// 32-bit.
    I32(&'a [i32]),
    /// 64-bit.
    I64(&'a [i64]),
}

impl Labels<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::I32(labels) => labels.len(),
            Self::I64(labels) => labels.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// That of a row.
    ///
    /// # Panics
    /// When there is none.
    #[inline(always)]
    pub fn get(&self, row: usize) -> i64 {
        match self {
            Self::I32(labels) => labels[row].into(),
            Self::I64(labels) => labels[row],
        }
    }
}

/// The settings of a cross-entropy, with PyTorch's meaning.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy<'a> {
    /// Rows of this label have neither loss nor gradient.
    pub ignore_index: i64,
    /// The share of the target that is spread evenly over all classes (ε).
    pub label_smoothing: f32,
    /// What a class's part of the loss is multiplied by, `[V]`.
    pub class_weights: Option<&'a [f32]>,
}

impl Default for CrossEntropy<'_> {
    /// Rows labelled −100 are ignored; no smoothing, no weights.
    fn default() -> Self {
        Self {
            ignore_index: -100,
            label_smoothing: 0.0,
            class_weights: None,
        }
    }
}

/// The loss of each row of `logits[T,V]` into `losses[T]`, and its gradient, times `scale`, in place of the logits.
///
/// With `p` the softmax and `w` the classes' weights (1 without), a row of label `y` has the loss
/// `−(1 − ε)·w_y·ln p_y − ε/V·Σ w_c·ln p_c`. The mean that PyTorch takes has the sum of all rows' `w_y` below it.
///
/// # Panics
/// When lengths disagree, or a label is neither a class nor the ignored one.
pub fn cross_entropy(
    exec: &Exec,
    logits: &mut [f32],
    classes: usize,
    labels: Labels<'_>,
    settings: &CrossEntropy<'_>,
    scale: f32,
    losses: &mut [f32],
) {
    let rows = losses.len();
    assert!(classes > 0, "rows of at least one class");
    assert_eq!(
        logits.len(),
        rows * classes,
        "logits are [{rows}, {classes}]"
    );
    assert_eq!(labels.len(), rows, "a label for each row");
    for row in 0..rows {
        let label = labels.get(row);
        let known = usize::try_from(label).is_ok_and(|label| label < classes);
        assert!(
            known || label == settings.ignore_index,
            "label {label} of row {row} is none of {classes} classes"
        );
    }
    let mut all_weights = classes as f64;
    if let Some(weights) = settings.class_weights {
        assert_eq!(weights.len(), classes, "a weight for each class");
        all_weights = weights.iter().map(|&w| f64::from(w)).sum();
    }
    let (logits, losses) = (SharedMut::new(logits), SharedMut::new(losses));
    exec.for_ranges(rows, WORK * classes, |rows| {
        exec.isa().run(Rows {
            // SAFETY: ranges are disjoint.
            logits: unsafe { logits.slice(rows.start * classes..rows.end * classes) },
            // SAFETY: as above.
            losses: unsafe { losses.slice(rows.clone()) },
            classes,
            first: rows.start,
            labels,
            settings,
            all_weights: all_weights as f32,
            scale,
        });
    });
}

struct Rows<'a> {
    logits: &'a mut [f32],
    losses: &'a mut [f32],
    classes: usize,
    /// The number of the first row.
    first: usize,
    labels: Labels<'a>,
    settings: &'a CrossEntropy<'a>,
    all_weights: f32,
    scale: f32,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let weights = self.settings.class_weights;
        // The smoothed part of each class's target.
        let spread = self.settings.label_smoothing / self.classes as f32;
        let rows = self.logits.chunks_exact_mut(self.classes);
        for (i, (row, loss)) in rows.zip(self.losses).enumerate() {
            let label = self.labels.get(self.first + i);
            if label == self.settings.ignore_index {
                row.fill(0.0);
                *loss = 0.0;
                continue;
            }
            let label = label as usize;
            let max = max(simd, row);
            let target = row[label] - max;
            let mut smooth = 0.0;
            if spread > 0.0 {
                smooth = total(simd, Below { row, max, weights });
            }
            let sum = total(
                simd,
                Powers {
                    row: &mut *row,
                    max,
                },
            );
            let log = sum.ln();
            let weight = match weights {
                Some(weights) => weights[label],
                None => 1.0,
            };
            let kept = (1.0 - self.settings.label_smoothing) * weight;
            *loss = kept * (log - target);
            if spread > 0.0 {
                *loss += spread * (self.all_weights * log - smooth);
            }
            let factor = (kept + spread * self.all_weights) * self.scale / sum;
            let spread = spread * self.scale;
            match weights {
                Some(weights) if spread > 0.0 => {
                    for (x, weight) in row.iter_mut().zip(weights) {
                        *x = *x * factor - spread * weight;
                    }
                }
                _ => {
                    for x in row.iter_mut() {
                        *x = *x * factor - spread;
                    }
                }
            }
            row[label] -= kept * self.scale;
        }
    }
}

/// `w·(x − max)`.
struct Below<'a> {
    row: &'a [f32],
    max: f32,
    weights: Option<&'a [f32]>,
}

impl Terms for Below<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.row.len()
    }

    #[inline(always)]
    fn vector<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let below = simd.sub(simd.load(&self.row[at..]), simd.splat(self.max));
        match self.weights {
            Some(weights) => simd.mul(below, simd.load(&weights[at..])),
            None => below,
        }
    }

    #[inline(always)]
    fn partial<S: Simd>(&mut self, simd: S, at: usize) -> S::F32 {
        let max = simd.splat(self.max);
        let below = simd.sub(simd.load_partial_or(&self.row[at..], max), max);
        match self.weights {
            Some(weights) => simd.mul(below, simd.load_partial(&weights[at..])),
            None => below,
        }
    }
}
