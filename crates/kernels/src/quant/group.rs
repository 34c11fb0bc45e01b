//! Scales, codes and values of a group.

use super::CodeBook;

/// What turns a group's levels into values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// What a level is multiplied by.
    pub scale: f32,
    /// What is taken from a level first; 0 where the book has no zero points.
    pub zero: u8,
}

/// Which range of a group's values the levels are spread over. What lies outside becomes the outermost level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Range {
    /// All.
    MinMax,
    /// From a percentile to its opposite: 99.9 leaves out the thousandth part at either end.
    Percentile(f32),
    /// That whose squared error, weighted by `[values]` where there are weights, is the least, of shares of the range
    /// from 0.3 on.
    MeanSquare,
    /// That whose scale is the mean magnitude of what is above 0.7 times the mean magnitude of all: for levels −1, 0 and 1
    /// (Li et al. 2016, <https://arxiv.org/abs/1605.04711>).
    Ternary,
}

/// Shares of the range that [`Range::MeanSquare`] tries.
const TRIES: u16 = 80;

/// The scale (and zero point) of a group. A group of zeros has scale 0 where the book is symmetric.
///
/// `importance` weighs the values' squared errors, for [`Range::MeanSquare`].
///
/// # Panics
/// When there are weights, but not one for each value.
pub fn fit_group(book: CodeBook, x: &[f32], range: Range, importance: Option<&[f32]>) -> Group {
    if book == CodeBook::Sign {
        let mean = x.iter().map(|x| f64::from(x.abs())).sum::<f64>() / x.len().max(1) as f64;
        return Group {
            scale: mean as f32,
            zero: 0,
        };
    }
    let (low, high) = match range {
        Range::Ternary => {
            let scale = ternary_scale(x) * book.most();
            (-scale, scale)
        }
        Range::Percentile(percent) => percentiles(x, percent),
        _ => x.iter().fold((0.0f32, 0.0f32), |(low, high), &x| {
            (low.min(x), high.max(x))
        }),
    };
    let whole = group_of(book, low, high);
    if range != Range::MeanSquare {
        return whole;
    }
    let error = |group: Group| {
        let squares = x.iter().enumerate().map(|(i, &x)| {
            let value = value(book, encode(book, x, group), group);
            let weight = importance.map_or(1.0, |weights| f64::from(weights[i]));
            weight * f64::from(value - x).powi(2)
        });
        squares.sum::<f64>()
    };
    let mut best = (error(whole), whole);
    for step in 0..TRIES {
        let share = 0.3 + 0.7 * f32::from(step) / f32::from(TRIES);
        let group = group_of(book, low * share, high * share);
        let error = error(group);
        if error < best.0 {
            best = (error, group);
        }
    }
    best.1
}

/// The mean magnitude of the values above 0.7 times the mean magnitude of all.
fn ternary_scale(x: &[f32]) -> f32 {
    let magnitudes = || x.iter().map(|x| f64::from(x.abs()));
    let threshold = 0.7 * magnitudes().sum::<f64>() / x.len().max(1) as f64;
    let mut above = (0.0f64, 0usize);
    for magnitude in magnitudes().filter(|&magnitude| magnitude > threshold) {
        above = (above.0 + magnitude, above.1 + 1);
    }
    (above.0 / above.1.max(1) as f64) as f32
}

/// The group whose levels go from `low ≤ 0` to `high ≥ 0`.
fn group_of(book: CodeBook, low: f32, high: f32) -> Group {
    if !book.has_zero_points() {
        return Group {
            scale: low.abs().max(high) / book.most(),
            zero: 0,
        };
    }
    let scale = (high - low) / book.most();
    let zero = match scale > 0.0 {
        true => (-low / scale).round_ties_even().clamp(0.0, book.most()) as u8,
        false => 0,
    };
    Group { scale, zero }
}

/// The values between which all but the outermost lie.
fn percentiles(x: &[f32], percent: f32) -> (f32, f32) {
    let mut sorted = x.to_vec();
    sorted.sort_by(f32::total_cmp);
    let at = |share: f32| {
        let place = (share / 100.0).clamp(0.0, 1.0) * (sorted.len().max(1) - 1) as f32;
        let (below, part) = (place.floor() as usize, place.fract());
        let value = |i: usize| sorted.get(i).or(sorted.last()).copied().unwrap_or(0.0);
        value(below) + (value(below + 1) - value(below)) * part
    };
    (at(100.0 - percent).min(0.0), at(percent).max(0.0))
}

/// The codes of a group's values.
///
/// # Panics
/// When the slices differ in length.
pub fn encode_group(book: CodeBook, x: &[f32], group: Group, codes: &mut [u8]) {
    assert_eq!(x.len(), codes.len(), "a code for each value");
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = encode(book, x, group);
    }
}

fn encode(book: CodeBook, x: f32, group: Group) -> u8 {
    let x = if group.scale > 0.0 {
        x / group.scale
    } else if book == CodeBook::Sign {
        x
    } else {
        0.0
    };
    book.nearest(x + f32::from(group.zero))
}

/// The values of a group's codes.
///
/// # Panics
/// When the slices differ in length.
pub fn decode_group(book: CodeBook, codes: &[u8], group: Group, x: &mut [f32]) {
    assert_eq!(x.len(), codes.len(), "a value for each code");
    for (x, &code) in x.iter_mut().zip(codes) {
        *x = value(book, code, group);
    }
}

#[inline]
fn value(book: CodeBook, code: u8, group: Group) -> f32 {
    (book.level(code) - f32::from(group.zero)) * group.scale
}
