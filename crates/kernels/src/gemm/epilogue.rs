//! What is done to a product while it is still in the cache.

use std::ops::Range;

use crate::Activation;
use crate::activation::{GeluErf, GeluErfCoarse, GeluTanh, Identity, Relu, Sigmoid, Silu, Tanh};
use crate::bf16::pair_row;
use crate::exec::SharedMut;
use crate::gemm::tile::MOST_COLUMNS;
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

/// How exact activations are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exactness {
    Full,
    /// For sums of products of 8 bits.
    Coarse,
}

impl Epilogue<'_> {
    /// `act(sums + bias)` in place, for whole vectors of columns from `first` on. There is no residual.
    #[inline(always)]
    pub(super) fn activate<S: Simd>(
        &self,
        simd: S,
        exactness: Exactness,
        sums: &mut [f32],
        first: usize,
    ) {
        match self.activation {
            Activation::GeluErf if exactness == Exactness::Coarse => {
                self.activate_by(simd, GeluErfCoarse, sums, first);
            }
            Activation::None => self.activate_by(simd, Identity, sums, first),
            Activation::GeluErf => self.activate_by(simd, GeluErf, sums, first),
            Activation::GeluTanh => self.activate_by(simd, GeluTanh, sums, first),
            Activation::Relu => self.activate_by(simd, Relu, sums, first),
            Activation::Silu => self.activate_by(simd, Silu, sums, first),
            Activation::Sigmoid => self.activate_by(simd, Sigmoid, sums, first),
            Activation::Tanh => self.activate_by(simd, Tanh, sums, first),
        }
    }

    #[inline(always)]
    fn activate_by<S: Simd, A: Unary>(
        &self,
        simd: S,
        activation: A,
        sums: &mut [f32],
        first: usize,
    ) {
        let mut i = 0;
        while i < sums.len() {
            let mut v = simd.load(&sums[i..]);
            if let Some(bias) = self.bias {
                let bias = bias.get(first + i..).unwrap_or(&[]);
                v = simd.add(
                    v,
                    match bias.len() < S::LANES {
                        true => simd.load_partial(bias),
                        false => simd.load(bias),
                    },
                );
            }
            simd.store(&mut sums[i..], activation.of(simd, v));
            i += S::LANES;
        }
    }
}

/// Where a tile belongs in a product of `n` columns.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    pub(crate) n: usize,
}

/// A finished tile's way into the product.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) exactness: Exactness,
    /// Whether the product holds the sums of earlier blocks of K.
    pub(crate) earlier: bool,
    /// Takes what is activated.
    pub(crate) before: Option<&'a SharedMut<'a>>,
    pub(crate) y: &'a SharedMut<'a>,
}

impl Finish<'_> {
    /// `y = act(sums + bias) + residual` for a tile, whose rows of sums are `width` apart, with the sums of earlier
    /// blocks of K, which `y` holds, added first where there are any.
    ///
    /// # Safety
    /// No slice of `y` or `before` may live that has values of the tile's place.
    #[inline(always)]
    pub(crate) unsafe fn tile<S: Simd>(&self, simd: S, tile: (&[f32], usize), place: &Place) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.epilogue.activation {
                Activation::GeluErf if self.exactness == Exactness::Coarse => {
                    self.rows(simd, GeluErfCoarse, tile, place);
                }
                Activation::None => self.rows(simd, Identity, tile, place),
                Activation::GeluErf => self.rows(simd, GeluErf, tile, place),
                Activation::GeluTanh => self.rows(simd, GeluTanh, tile, place),
                Activation::Relu => self.rows(simd, Relu, tile, place),
                Activation::Silu => self.rows(simd, Silu, tile, place),
                Activation::Sigmoid => self.rows(simd, Sigmoid, tile, place),
                Activation::Tanh => self.rows(simd, Tanh, tile, place),
            }
        }
    }

    /// [`Finish::tile`] of sums that are whole, rounded and paired: `y` has two columns in a word. There is no residual, and nobody
    /// takes what is activated.
    ///
    /// # Safety
    /// As [`Finish::tile`].
    #[inline(always)]
    pub(super) unsafe fn tile_as_pairs<S: Simd>(
        &self,
        simd: S,
        (tile, width): (&[f32], usize),
        Place { rows, columns, n }: &Place,
    ) {
        let mut values = [0.0; MOST_COLUMNS];
        let (values, len) = (&mut values[..width], columns.len());
        for (r, row) in rows.clone().enumerate() {
            values.copy_from_slice(&tile[r * width..][..width]);
            (self.epilogue).activate(simd, self.exactness, values, columns.start);
            let at = row * n + columns.start;
            // SAFETY: the caller's promise.
            let words = unsafe { self.y.slice(at / 2..(at + len) / 2) };
            pair_row(simd, &values[..len], words);
        }
    }

    /// # Safety
    /// As [`Finish::tile`].
    #[inline(always)]
    unsafe fn rows<S: Simd, A: Unary>(
        &self,
        simd: S,
        activation: A,
        (tile, width): (&[f32], usize),
        Place { rows, columns, n }: &Place,
    ) {
        for (r, row) in rows.clone().enumerate() {
            let at = row * n + columns.start;
            let sums = &tile[r * width..][..columns.len()];
            // Twice, so that the common case has a length known at compile time where the width is.
            // SAFETY: the caller's promise.
            unsafe {
                if columns.len() == width {
                    self.row(simd, activation, sums, columns.start, at, width);
                } else {
                    self.row(simd, activation, sums, columns.start, at, columns.len());
                }
            }
        }
    }

    /// # Safety
    /// As [`Finish::tile`].
    #[inline(always)]
    unsafe fn row<S: Simd, A: Unary>(
        &self,
        simd: S,
        activation: A,
        sums: &[f32],
        column: usize,
        at: usize,
        len: usize,
    ) {
        // SAFETY: the caller's promise.
        let y = unsafe { self.y.slice(at..at + len) };
        let mut before = match self.before {
            // SAFETY: the caller's promise.
            Some(before) => Some(unsafe { before.slice(at..at + len) }),
            None => None,
        };
        let bias = self.epilogue.bias.map(|bias| &bias[column..][..len]);
        let residual = self.epilogue.residual.map(|all| &all[at..][..len]);
        let whole = len - len % S::LANES;
        let mut i = 0;
        while i < whole {
            let mut v = simd.load(&sums[i..]);
            if self.earlier {
                v = simd.add(simd.load(&y[i..]), v);
            }
            if let Some(bias) = bias {
                v = simd.add(v, simd.load(&bias[i..]));
            }
            if let Some(before) = &mut before {
                simd.store(&mut before[i..], v);
            }
            v = activation.of(simd, v);
            if let Some(residual) = residual {
                v = simd.add(v, simd.load(&residual[i..]));
            }
            simd.store(&mut y[i..], v);
            i += S::LANES;
        }
        if whole < len {
            let mut v = simd.load_partial(&sums[whole..len]);
            if self.earlier {
                v = simd.add(simd.load_partial(&y[whole..]), v);
            }
            if let Some(bias) = bias {
                v = simd.add(v, simd.load_partial(&bias[whole..]));
            }
            if let Some(before) = &mut before {
                simd.store_partial(&mut before[whole..], v);
            }
            v = activation.of(simd, v);
            if let Some(residual) = residual {
                v = simd.add(v, simd.load_partial(&residual[whole..]));
            }
            simd.store_partial(&mut y[whole..], v);
        }
    }
}

/// Adds a tile's sums, whose rows are `width` apart, to their place in `y`, or writes them over what is there.
///
/// # Safety
/// As [`Finish::tile`].
#[inline(always)]
pub(super) unsafe fn put_sums<S: Simd>(
    simd: S,
    (tile, width): (&[f32], usize),
    Place { rows, columns, n }: &Place,
    add: bool,
    y: &SharedMut<'_>,
) {
    for (r, row) in rows.clone().enumerate() {
        let at = row * n + columns.start;
        let sums = &tile[r * width..][..columns.len()];
        // SAFETY: the caller's promise.
        let y = unsafe { y.slice(at..at + columns.len()) };
        if y.len() == width {
            let mut i = 0;
            while i < width {
                let mut v = simd.load(&sums[i..]);
                if add {
                    v = simd.add(simd.load(&y[i..]), v);
                }
                simd.store(&mut y[i..], v);
                i += S::LANES;
            }
        } else if add {
            for (y, sum) in y.iter_mut().zip(sums) {
                *y += sum;
            }
        } else {
            y.copy_from_slice(sums);
        }
    }
}
