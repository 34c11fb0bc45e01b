//! What is done to a product while it is still in the cache.

use crate::Activation;
use crate::activation::{GeluErf, GeluTanh, Identity, Relu, Sigmoid, Silu, Tanh};
use crate::simd::Simd;
use crate::simd::unary::Unary;

/// The last pass over a product: `act(y + bias) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// Added to each row, `[N]`.
    pub bias: Option<&'a [f32]>,
    /// Applied to each value.
    pub activation: Activation,
    /// Added last, `[T,N]`.
    pub residual: Option<&'a [f32]>,
}

/// Where sums of a product belong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    /// Columns of the product.
    pub(super) n: usize,
}

impl Epilogue<'_> {
    /// `y = act(sums + bias) + residual`, with the sums of earlier blocks of K, which `y` holds, added
    /// first where there are any. What is activated goes to `before`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) fn finish<S: Simd>(
        &self,
        simd: S,
        sums: &[f32],
        earlier: bool,
        place: Place,
        before: Option<&mut [f32]>,
        y: &mut [f32],
    ) {
        match self.activation {
            Activation::None => self.apply(simd, Identity, sums, earlier, place, before, y),
            Activation::GeluErf => self.apply(simd, GeluErf, sums, earlier, place, before, y),
            Activation::GeluTanh => self.apply(simd, GeluTanh, sums, earlier, place, before, y),
            Activation::Relu => self.apply(simd, Relu, sums, earlier, place, before, y),
            Activation::Silu => self.apply(simd, Silu, sums, earlier, place, before, y),
            Activation::Sigmoid => self.apply(simd, Sigmoid, sums, earlier, place, before, y),
            Activation::Tanh => self.apply(simd, Tanh, sums, earlier, place, before, y),
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn apply<S: Simd, A: Unary>(
        &self,
        simd: S,
        activation: A,
        sums: &[f32],
        earlier: bool,
        Place { row, column, n }: Place,
        mut before: Option<&mut [f32]>,
        y: &mut [f32],
    ) {
        let len = y.len();
        let sums = &sums[..len];
        let bias = self.bias.map(|bias| &bias[column..][..len]);
        let residual = self.residual.map(|all| &all[row * n + column..][..len]);
        let whole = len - len % S::LANES;
        let mut at = 0;
        while at < whole {
            let mut v = simd.load(&sums[at..]);
            if earlier {
                v = simd.add(simd.load(&y[at..]), v);
            }
            if let Some(bias) = bias {
                v = simd.add(v, simd.load(&bias[at..]));
            }
            if let Some(before) = &mut before {
                simd.store(&mut before[at..], v);
            }
            v = activation.of(simd, v);
            if let Some(residual) = residual {
                v = simd.add(v, simd.load(&residual[at..]));
            }
            simd.store(&mut y[at..], v);
            at += S::LANES;
        }
        if whole < len {
            let mut v = simd.load_partial(&sums[whole..]);
            if earlier {
                v = simd.add(simd.load_partial(&y[whole..]), v);
            }
            if let Some(bias) = bias {
                v = simd.add(v, simd.load_partial(&bias[whole..]));
            }
            if let Some(before) = &mut before {
                simd.store_partial(&mut before[whole..len], v);
            }
            v = activation.of(simd, v);
            if let Some(residual) = residual {
                v = simd.add(v, simd.load_partial(&residual[whole..]));
            }
            simd.store_partial(&mut y[whole..], v);
        }
    }
}
