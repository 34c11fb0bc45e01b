//! Losses of single values.

use crate::Exec;
use crate::exec::SharedMut;

/// The binary cross-entropy of each logit `x` with its target `t` (from 0 to 1) into `losses`,
/// `max(x, 0) − x·t + ln(1 + e^(−|x|))`, and its gradient `1/(1 + e⁻ˣ) − t`, times `scale`, in place of the logits.
///
/// # Panics
/// When lengths disagree.
pub fn binary_cross_entropy(
    exec: &Exec,
    logits: &mut [f32],
    targets: &[f32],
    scale: f32,
    losses: &mut [f32],
) {
    each(exec, logits, targets, losses, 32, |x, t| {
        let e = (-x.abs()).exp();
        let loss = x.max(0.0) - x * t + e.ln_1p();
        let above = if x < 0.0 { e } else { 1.0 };
        (loss, (above / (1.0 + e) - t) * scale)
    });
}

/// The squared error `(x − t)²` of each value into `losses`, and its gradient `2·(x − t)`, times `scale`, in place of the
/// values.
///
/// # Panics
/// When lengths disagree.
pub fn mean_squared_error(
    exec: &Exec,
    values: &mut [f32],
    targets: &[f32],
    scale: f32,
    losses: &mut [f32],
) {
    each(exec, values, targets, losses, 2, |x, t| {
        let error = x - t;
        (error * error, 2.0 * error * scale)
    });
}

/// Calls `of` for each value and target, which gives the loss and the gradient.
fn each(
    exec: &Exec,
    values: &mut [f32],
    targets: &[f32],
    losses: &mut [f32],
    work: usize,
    of: impl Fn(f32, f32) -> (f32, f32) + Sync,
) {
    let len = values.len();
    assert_eq!(targets.len(), len, "a target for every value");
    assert_eq!(losses.len(), len, "room for every loss");
    let (values, losses) = (SharedMut::new(values), SharedMut::new(losses));
    exec.for_ranges(len, work, |range| {
        // SAFETY: ranges are disjoint.
        let values = unsafe { values.slice(range.clone()) };
        // SAFETY: as above.
        let losses = unsafe { losses.slice(range.clone()) };
        for ((x, t), loss) in values.iter_mut().zip(&targets[range]).zip(losses) {
            (*loss, *x) = of(*x, *t);
        }
    });
}
