//! Functions of each value: a table of the functions and their derivatives.

use bertha_kernels::Activation;
use bertha_tensor::Tensor;

use super::broadcast::{map, with_float, zip_same};
use super::erf::{erfc, normal_density};
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

    /// The kernel that computes it on f32, if there is one.
    const KERNEL: Option<Activation> = None;
}

fn apply<F: Function>(session: &Session, function: F, x: &Var) -> Result<Var, AutogradError> {
    let float = F::INFO.float(&[x])?;
    let y = match (float, F::KERNEL) {
        (Float::F32, Some(activation)) => {
            let mut y = Tensor::scratch_in(session.pool(), x.dtype(), x.shape())?;
            let values = y.as_mut_slice::<f32>()?;
            values.copy_from_slice(x.tensor().contiguous().as_slice()?);
            bertha_kernels::activate(session.exec(), activation, values);
            y
        }
        _ => with_float!(float, T => map::<T>(session, x.tensor(), |x| function.value(x))?),
    };
    let Some(to) = x.target() else {
        return Ok(Var::constant(y));
    };
    let kept = match F::KEEPS {
        Keeps::Nothing => None,
        Keeps::Input => Some(x.tensor().clone()),
        Keeps::Output => Some(y.clone()),
    };
    Ok(F::INFO.record(y, move |flow, dy| {
        let session = flow.session();
        let dx = with_float!(float, T => match kept {
            Some(kept) => zip_same::<T>(session, &dy, &kept, |dy, kept| {
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
        $(kernel $kernel:expr,)?
        |$f:ident, $x:ident: $t:ident| $value:expr,
        |$kept:ident| $derivative:expr
    ) => {
        pub(super) const $info: OpInfo = differentiable(stringify!($name));

        #[derive(Clone, Copy)]
        struct $type { $($field: $field_type),* }

        impl Function for $type {
            const INFO: OpInfo = $info;
            const KEEPS: Keeps = Keeps::$keeps;
            $(const KERNEL: Option<Activation> = Some($kernel);)?

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
function! {
    /// `max(x, 0)`, of any shape; the derivative at 0 is 0.
    RELU, relu, Relu {}, Output, kernel Activation::Relu,
    |f, x: T| x.greater(T::ZERO),
    |y| if y > T::ZERO { T::ONE } else { T::ZERO }
}
function! {
    /// `1/(1 + e⁻ˣ)`, of any shape.
    SIGMOID, sigmoid, Sigmoid {}, Output, |f, x: T| logistic(x), |y| y * (T::ONE - y)
}
function! {
    /// The hyperbolic tangent, of any shape.
    TANH, tanh, Tanh {}, Output, kernel Activation::Tanh,
    |f, x: T| x.tanh(), |y| T::ONE - y * y
}
function! {
    /// `x·Φ(x)` with the normal distribution Φ, of any shape: GELU in its exact form
    /// (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>).
    GELU, gelu, Gelu {}, Input, kernel Activation::GeluErf,
    |f, x: T| {
        let x = x.to_f64();
        T::from_f64(if x == f64::NEG_INFINITY { -0.0 } else { x * normal(x) })
    },
    |x| {
        let x = x.to_f64();
        let slope = if x.is_infinite() { 0.0 } else { x * normal_density(x) };
        T::from_f64(normal(x) + slope)
    }
}
function! {
    /// `x/(1 + e⁻ˣ)`, of any shape: SiLU, also called swish.
    SILU, silu, Silu {}, Input, kernel Activation::Silu,
    |f, x: T| if x == T::NEG_INFINITY { -T::ZERO } else { x * logistic(x) },
    |x| {
        let p = logistic(x);
        if x.to_f64().is_infinite() { p } else { p + x * p * (T::ONE - p) }
    }
}

/// `1/(1 + e⁻ˣ)`.
#[inline(always)]
pub(super) fn logistic<T: Real>(x: T) -> T {
    // Where e⁻ˣ overflows, the quotient is 0 as it should be.
    T::ONE / (T::ONE + (-x).exp())
}

/// The normal distribution Φ.
fn normal(x: f64) -> f64 {
    0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
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
