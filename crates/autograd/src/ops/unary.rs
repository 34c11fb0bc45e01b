//! Functions of each value: a table of the functions and their derivatives.

use bertha_kernels::Activation;

use super::broadcast::{map, with_float, zip_same};
use super::pointwise::activate;
use super::real::Real;
use super::{Float, OpInfo, differentiable};
use crate::{AutogradError, Session, Var};

/// What the derivative is a function of.
enum Keeps {
    Nothing,
    Input,
    Output,
}

/// A function of one number.
trait Function: Copy + Send + 'static {
    const INFO: OpInfo;
    const KEEPS: Keeps;

    fn value<T: Real>(self, x: T) -> T;

    /// `dy/dx`, of the input or the output as [`Function::KEEPS`] says.
    fn derivative<T: Real>(self, kept: T) -> T;
}

fn apply<F: Function>(session: &Session, function: F, x: &Var) -> Result<Var, AutogradError> {
    let float = F::INFO.float(&[x])?;
    let y = with_float!(float, T => map::<T>(session, x.tensor(), |x| function.value(x))?);
    let Some(to) = x.target().filter(|_| session.records()) else {
        return Ok(Var::constant(y));
    };
    let kept = match F::KEEPS {
        Keeps::Nothing => None,
        Keeps::Input => Some(session.save(x.tensor())?),
        Keeps::Output => Some(session.save(&y)?),
    };
    Ok(F::INFO.record(y, move |flow, dy| {
        let session = flow.session();
        let dx = with_float!(float, T => match kept {
            Some(kept) => zip_same::<T>(session, &dy, &kept.load(session)?, |dy, kept| {
                dy * function.derivative(kept)
            })?,
            None => map::<T>(session, &dy, |dy| dy * function.derivative(T::ZERO))?,
        });
        flow.add(&to.source, dx)
    }))
}

/// Defines an operation: its registry constant, its public function, and its [`Function`].
macro_rules! function {
    (
        $(#[$doc:meta])*
        $info:ident, $name:ident, $type:ident { $($field:ident: $field_type:ty),* }, $keeps:ident,
        |$f:ident, $x:ident: $t:ident| $value:expr,
        |$kept:ident| $derivative:expr
    ) => {
        pub(super) const $info: OpInfo = differentiable(stringify!($name));

        #[derive(Clone, Copy)]
        struct $type { $($field: $field_type),* }

        impl Function for $type {
            const INFO: OpInfo = $info;
            const KEEPS: Keeps = Keeps::$keeps;

            #[inline(always)]
            fn value<$t: Real>(self, $x: $t) -> $t {
                let $f = self;
                let _ = $f;
                $value
            }

            #[inline(always)]
            fn derivative<$t: Real>(self, $kept: $t) -> $t {
                let $f = self;
                let _ = ($f, $kept);
                $derivative
            }
        }

        $(#[$doc])*
        ///
        /// # Errors
        /// When `x` is neither f32 nor f64.
        pub fn $name(session: &Session, x: &Var, $($field: $field_type),*) -> Result<Var, AutogradError> {
            apply(session, $type { $($field),* }, x)
        }
    };
}

function! {
    /// `−x`, of any shape.
    NEG, neg, Neg {}, Nothing, |f, x: T| -x, |_x| -T::ONE
}
function! {
    /// `x + scalar`, of any shape.
    ADD_SCALAR, add_scalar, AddScalar { scalar: f64 }, Nothing,
    |f, x: T| x + T::from_f64(f.scalar), |_x| T::ONE
}
function! {
    /// `x · scalar`, of any shape.
    MUL_SCALAR, mul_scalar, MulScalar { scalar: f64 }, Nothing,
    |f, x: T| x * T::from_f64(f.scalar), |_x| T::from_f64(f.scalar)
}
function! {
    /// `eˣ`, of any shape.
    EXP, exp, Exp {}, Output, |f, x: T| x.exp(), |y| y
}
function! {
    /// The natural logarithm, of any shape.
    LN, ln, Ln {}, Input, |f, x: T| x.ln(), |x| T::ONE / x
}
function! {
    /// `√x`, of any shape.
    SQRT, sqrt, Sqrt {}, Output, |f, x: T| x.sqrt(), |y| T::from_f64(0.5) / y
}
function! {
    /// `x` to the power of `exponent`, of any shape.
    POWF, powf, Powf { exponent: f64 }, Input,
    |f, x: T| x.powf(T::from_f64(f.exponent)),
    |x| if f.exponent == 0.0 {
        T::ZERO
    } else {
        T::from_f64(f.exponent) * x.powf(T::from_f64(f.exponent - 1.0))
    }
}
function! {
    /// `|x|`, of any shape; the derivative at 0 is 0.
    ABS, abs, Abs {}, Input, |f, x: T| x.abs(),
    |x| if x > T::ZERO {
        T::ONE
    } else if x < T::ZERO {
        -T::ONE
    } else {
        x * T::ZERO
    }
}
function! {
    /// `min(max(x, low), high)`, of any shape. The gradient is let through where `low ≤ x ≤ high`.
    CLAMP, clamp, Clamp { low: f64, high: f64 }, Input,
    |f, x: T| x.greater(T::from_f64(f.low)).lesser(T::from_f64(f.high)),
    |x| if x >= T::from_f64(f.low) && x <= T::from_f64(f.high) { T::ONE } else { T::ZERO }
}
/// `max(x, 0)`, of any shape, f32 or f64; the derivative at 0 is 0.
///
/// # Errors
/// As [`activate`].
pub fn relu(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    activate(session, Activation::Relu, x.clone())
}

/// `1/(1 + e⁻ˣ)`, of any shape, f32 or f64.
///
/// # Errors
/// As [`activate`].
pub fn sigmoid(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    activate(session, Activation::Sigmoid, x.clone())
}

/// The hyperbolic tangent, of any shape, f32 or f64.
///
/// # Errors
/// As [`activate`].
pub fn tanh(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    activate(session, Activation::Tanh, x.clone())
}

/// GELU in its exact form, `x·Φ(x)` with the normal distribution Φ, of any shape, f32 or f64.
///
/// # Errors
/// As [`activate`].
pub fn gelu(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    activate(session, Activation::GeluErf, x.clone())
}

/// `x/(1 + e⁻ˣ)`, of any shape, f32 or f64: SiLU, also called swish.
///
/// # Errors
/// As [`activate`].
pub fn silu(session: &Session, x: &Var) -> Result<Var, AutogradError> {
    activate(session, Activation::Silu, x.clone())
}

#[cfg(test)]
mod tests {
    use bertha_tensor::Tensor;

    use super::*;

    type Unary = fn(&Session, &Var) -> Result<Var, AutogradError>;

    #[test]
    fn f32_and_f64_agree() {
        let session = Session::new(Some(1)).unwrap();
        let values: Vec<f64> = (-40..=40).map(|i| f64::from(i) / 8.0).collect();
        let x = Tensor::from_vec(values, &[81]).unwrap();
        let functions: [(&str, Unary); 7] = [
            ("exp", exp),
            ("abs", abs),
            ("relu", relu),
            ("sigmoid", sigmoid),
            ("tanh", tanh),
            ("gelu", gelu),
            ("silu", silu),
        ];
        for (name, function) in functions {
            let run = |dtype| {
                let x = Var::constant(x.to_dtype(dtype).unwrap());
                let y = function(&session, &x).unwrap().into_tensor();
                y.to_dtype(bertha_tensor::DType::F64)
                    .unwrap()
                    .to_vec::<f64>()
                    .unwrap()
            };
            let (single, double) = (
                run(bertha_tensor::DType::F32),
                run(bertha_tensor::DType::F64),
            );
            for (a, b) in single.iter().zip(&double) {
                assert!(
                    (a - b).abs() <= 1e-6 * b.abs() + 1e-9,
                    "{name}: {a} and {b}"
                );
            }
        }
    }

    #[test]
    fn extremes_have_their_limits() {
        let session = Session::new(Some(1)).unwrap();
        let ends = Tensor::from_vec(vec![f64::NEG_INFINITY, f64::INFINITY, f64::NAN], &[3]);
        let x = Var::constant(ends.unwrap());
        let values = |y: Result<Var, AutogradError>| y.unwrap().tensor().to_vec::<f64>().unwrap();
        for function in [gelu, silu, relu] as [Unary; 3] {
            let y = values(function(&session, &x));
            assert!(y[0] == 0.0 && y[1] == f64::INFINITY && y[2].is_nan());
        }
        let y = values(sigmoid(&session, &x));
        assert!(y[0] == 0.0 && y[1] == 1.0 && y[2].is_nan());
        let y = values(clamp(&session, &x, -2.0, 3.0));
        assert!(y[0] == -2.0 && y[1] == 3.0 && y[2].is_nan());
    }

    #[test]
    fn integers_are_refused_by_name() {
        let session = Session::new(Some(1)).unwrap();
        let x = Var::constant(Tensor::from_vec(vec![1_i64], &[1]).unwrap());
        let error = exp(&session, &x).unwrap_err().to_string();
        assert!(error.contains("`exp`") && error.contains("I64"), "{error}");
    }
}
