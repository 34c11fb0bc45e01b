//! Losses of the general set, each the mean over its values.

use bertha_tensor::Tensor;

use super::broadcast::{map, with_float, zip_same};
use super::index::integers;
use super::real::{Real, sum};
use super::reduce::log_sum_exp;
use super::unary::logistic;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

pub(super) const CROSS_ENTROPY: OpInfo = differentiable("cross_entropy");
pub(super) const MSE_LOSS: OpInfo = differentiable("mse_loss");
pub(super) const BCE_WITH_LOGITS: OpInfo = differentiable("bce_with_logits");

/// The mean over rows of `−ln softmax(logits)[label]`, of shape `[]`, for `logits[…,V]` and i64 or i32 `labels[…]`, f32 or
/// f64. Rows whose label is `ignore_index` do not count (transformers mark them with −100); where all do not, the loss
/// is 0.
///
/// # Errors
/// When the shapes do not fit, the labels are not i64 or i32, a label is neither a class nor ignored, or the logits are
/// neither f32 nor f64.
pub fn cross_entropy(
    session: &Session,
    logits: &Var,
    labels: &Tensor,
    ignore_index: Option<i64>,
) -> Result<Var, AutogradError> {
    let float = CROSS_ENTROPY.float(&[logits])?;
    let Some((&classes, rows)) = logits.shape().split_last() else {
        let expected = "one dimension or more".into();
        return Err(CROSS_ENTROPY.shape_error("the logits", &[], expected));
    };
    if labels.shape() != rows {
        let expected = format!("{rows:?}, as the rows of the logits");
        return Err(CROSS_ENTROPY.shape_error("the labels", labels.shape(), expected));
    }
    // A class, or nothing where it is ignored.
    let class = |label: i64| {
        if Some(label) == ignore_index {
            return Ok(None);
        }
        let class = usize::try_from(label).ok().filter(|&class| class < classes);
        class.map(Some).ok_or(AutogradError::OutOfRange {
            op: CROSS_ENTROPY.name,
            what: "class",
            index: label,
            len: classes,
        })
    };
    let labels = integers(CROSS_ENTROPY.name, labels)?;
    let labels: Vec<Option<usize>> = labels.into_iter().map(class).collect::<Result<_, _>>()?;
    let to = logits.target();
    let (loss, gradient) = with_float!(float, T => {
        cross_entropy_rows::<T>(session, logits.tensor(), classes, &labels, to.is_some())?
    });
    let (Some(to), Some(gradient)) = (to, gradient) else {
        return Ok(Var::constant(loss));
    };
    Ok(CROSS_ENTROPY.record(loss, move |flow, dy| {
        let dx = with_float!(float, T => {
            let dy = dy.item::<T>()?;
            map::<T>(flow.session(), &gradient, |dx| dx * dy)?
        });
        flow.add(&to.source, dx)
    }))
}

/// The mean loss and, if wanted, its gradient with respect to the logits: `(softmax − one-hot)/rows that count`.
fn cross_entropy_rows<T: Real>(
    session: &Session,
    logits: &Tensor,
    classes: usize,
    labels: &[Option<usize>],
    wants_gradient: bool,
) -> Result<(Tensor, Option<Tensor>), AutogradError> {
    let logits = logits.contiguous();
    let rows = || {
        logits
            .as_slice::<T>()
            .map(|x| x.chunks_exact(classes.max(1)).zip(labels))
    };
    let count = labels.iter().flatten().count().max(1) as f64;
    let log_sums: Vec<f64> = rows()?
        .map(|(row, label)| label.map_or(0.0, |_| log_sum_exp(row)))
        .collect();
    let losses: Vec<f64> = rows()?
        .zip(&log_sums)
        .map(|((row, label), log_sum)| label.map_or(0.0, |class| log_sum - row[class].to_f64()))
        .collect();
    let loss = Tensor::full(T::from_f64(sum(&losses) / count), &[])?;
    if !wants_gradient {
        return Ok((loss, None));
    }
    let mut gradient = Tensor::zeros_in(session.pool(), T::DTYPE, logits.shape())?;
    let share = T::from_f64(1.0 / count);
    let gradients = gradient
        .as_mut_slice::<T>()?
        .chunks_exact_mut(classes.max(1));
    for (dx, ((row, label), &log_sum)) in gradients.zip(rows()?.zip(&log_sums)) {
        let &Some(class) = label else { continue };
        let log_sum = T::from_f64(log_sum);
        for (dx, &x) in dx.iter_mut().zip(row) {
            *dx = (x - log_sum).exp() * share;
        }
        dx[class] = dx[class] - share;
    }
    Ok((loss, Some(gradient)))
}

/// The mean of `(input − target)²`, of shape `[]`; the two are of one shape, f32 or f64.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn mse_loss(session: &Session, input: &Var, target: &Var) -> Result<Var, AutogradError> {
    let inputs = [input, target];
    let (tracked, float) = (MSE_LOSS.admit(&inputs)?, MSE_LOSS.float(&inputs)?);
    same_shape(MSE_LOSS, input, target)?;
    let (distance, loss) = with_float!(float, T => {
        let distance = zip_same::<T>(session, input.tensor(), target.tensor(), |x, t| x - t)?;
        let squares = map::<T>(session, &distance, |d| d * d)?;
        let loss = mean::<T>(&squares)?;
        (distance, loss)
    });
    if !tracked {
        return Ok(Var::constant(loss));
    }
    let (to_input, to_target) = (input.target(), target.target());
    Ok(MSE_LOSS.record(loss, move |flow, dy| {
        let session = flow.session();
        for (to, sign) in [(to_input, 2.0), (to_target, -2.0)] {
            let Some(to) = to else { continue };
            let dx = with_float!(float, T => {
                let scale = T::from_f64(sign * dy.item::<T>()?.to_f64() / distance.numel() as f64);
                map::<T>(session, &distance, |d| d * scale)?
            });
            flow.add(&to.source, dx)?;
        }
        Ok(())
    }))
}

/// The mean of the binary cross-entropy `−t·ln σ(x) − (1 − t)·ln(1 − σ(x))`, of shape `[]`, for logits `x` and targets `t`
/// from 0 to 1, of one shape, f32 or f64. It does not overflow.
///
/// # Errors
/// When shapes or dtypes differ.
pub fn bce_with_logits(
    session: &Session,
    logits: &Var,
    target: &Var,
) -> Result<Var, AutogradError> {
    let inputs = [logits, target];
    let tracked = BCE_WITH_LOGITS.admit(&inputs)?;
    let float = BCE_WITH_LOGITS.float(&inputs)?;
    same_shape(BCE_WITH_LOGITS, logits, target)?;
    let (x, t) = (logits.tensor().clone(), target.tensor().clone());
    let loss = with_float!(float, T => {
        // max(x, 0) − x·t + ln(1 + e^(−|x|))
        let losses = zip_same::<T>(session, &x, &t, |x, t| {
            let (x, t) = (x.to_f64(), t.to_f64());
            T::from_f64(x.max(0.0) - x * t + (-x.abs()).exp().ln_1p())
        })?;
        mean::<T>(&losses)?
    });
    if !tracked {
        return Ok(Var::constant(loss));
    }
    let (to_logits, to_target) = (logits.target(), target.target());
    Ok(BCE_WITH_LOGITS.record(loss, move |flow, dy| {
        let session = flow.session();
        let share = with_float!(float, T => dy.item::<T>()?.to_f64()) / x.numel() as f64;
        if let Some(to) = to_logits {
            let dx = with_float!(float, T => zip_same::<T>(session, &x, &t, |x, t| {
                (logistic(x) - t) * T::from_f64(share)
            })?);
            flow.add(&to.source, dx)?;
        }
        if let Some(to) = to_target {
            let dt = with_float!(float, T => map::<T>(session, &x, |x| x * T::from_f64(-share))?);
            flow.add(&to.source, dt)?;
        }
        Ok(())
    }))
}

fn same_shape(info: OpInfo, input: &Var, target: &Var) -> Result<(), AutogradError> {
    if input.shape() != target.shape() {
        let expected = format!("{:?}, as the input", input.shape());
        return Err(info.shape_error("the target", target.shape(), expected));
    }
    Ok(())
}

/// The mean of a contiguous tensor, of shape `[]`.
fn mean<T: Real>(values: &Tensor) -> Result<Tensor, AutogradError> {
    let mean = sum(values.as_slice::<T>()?) / values.numel() as f64;
    Ok(Tensor::full(T::from_f64(mean), &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(Some(1)).unwrap()
    }

    #[test]
    fn ignored_rows_do_not_count() {
        let logits = vec![0.0_f32, 0.0, 5.0, 9.0, 1.0, 1.0];
        let logits = Var::constant(Tensor::from_vec(logits, &[3, 2]).unwrap());
        let loss = |labels: [i64; 3]| {
            let labels = Tensor::from_vec(labels.to_vec(), &[3]).unwrap();
            cross_entropy(&session(), &logits, &labels, Some(-100))
        };
        let found = loss([1, -100, 0]).unwrap().tensor().item::<f32>().unwrap();
        assert_eq!(found, 2_f32.ln());
        assert_eq!(
            loss([-100; 3]).unwrap().tensor().item::<f32>().unwrap(),
            0.0
        );
        let error = loss([0, 2, 0]).unwrap_err().to_string();
        assert!(
            error.contains("`cross_entropy`") && error.contains("class 2"),
            "{error}"
        );
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let x = Var::constant(Tensor::from_vec(vec![1000.0_f32, -1000.0], &[2]).unwrap());
        let t = Var::constant(Tensor::from_vec(vec![0.0_f32, 0.0], &[2]).unwrap());
        let loss = bce_with_logits(&session(), &x, &t).unwrap();
        assert_eq!(loss.tensor().item::<f32>().unwrap(), 500.0);
        let label = Tensor::from_vec(vec![1_i32], &[1]).unwrap();
        let x = crate::ops::reshape(&session(), &x, &[1, 2]).unwrap();
        let loss = cross_entropy(&session(), &x, &label, None).unwrap();
        assert_eq!(loss.tensor().item::<f32>().unwrap(), 2000.0);
    }

    #[test]
    fn shapes_must_agree() {
        let zeros = |shape| Var::constant(Tensor::zeros(bertha_tensor::DType::F32, shape).unwrap());
        let error = mse_loss(&session(), &zeros(&[2, 1]), &zeros(&[2])).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("`mse_loss`") && error.contains("[2, 1]"),
            "{error}"
        );
    }
}
