//! Each value to the nearest level of its group.

use bertha_kernels::{
    CodeBook, Group, GroupRange, encode_group, fit_group, pack_codes, packed_len,
};
use bertha_nn::{QuantizedMatrix, WeightFormat};
use bertha_tensor::Tensor;
use rayon::prelude::*;

use crate::CompressError;

/// A row's codes, and its groups.
pub(crate) struct Row {
    pub(crate) codes: Vec<u8>,
    pub(crate) groups: Vec<Group>,
}

/// The levels of a format, and the values of a group of a row of `columns`.
pub(crate) fn levels(format: WeightFormat, columns: usize) -> (CodeBook, usize) {
    match format {
        WeightFormat::Int8 => (CodeBook::Symmetric(8), columns.max(1)),
        WeightFormat::Codes { book, group } => (book, group.max(1)),
        WeightFormat::Binary => (CodeBook::Sign, columns.max(1)),
    }
}

/// The scale (and zero point) of a group of a weight. Scales of whole-number levels are such that 16 bits hold them.
pub(crate) fn fit(
    format: WeightFormat,
    book: CodeBook,
    x: &[f32],
    range: GroupRange,
    importance: Option<&[f32]>,
) -> Group {
    let mut group = fit_group(book, x, range, importance);
    let halved = matches!(book, CodeBook::Symmetric(_) | CodeBook::Asymmetric(_));
    if halved && format != WeightFormat::Int8 {
        let scale = half::f16::from_f32(group.scale);
        // Too large or too small for 16 bits: it keeps its own.
        if scale.is_normal() {
            group.scale = scale.to_f32();
        }
    }
    group
}

/// `w[rows,columns]` with each value at the nearest level over a range of its group. `importance` `[columns]` weighs
/// squared errors where the range is searched.
///
/// # Errors
/// When a tensor cannot be made.
///
/// # Panics
/// When `w` or `importance` has another length.
pub fn round_to_nearest(
    format: WeightFormat,
    w: &[f32],
    columns: usize,
    range: GroupRange,
    importance: Option<&[f32]>,
) -> Result<QuantizedMatrix, CompressError> {
    let (book, size) = levels(format, columns);
    let rows: Vec<Row> = w
        .par_chunks(columns.max(1))
        .map(|row| {
            let mut codes = vec![0; row.len()];
            let pieces = row.chunks(size).zip(codes.chunks_mut(size)).enumerate();
            let groups = pieces.map(|(i, (x, codes))| {
                let importance = importance.map(|all| &all[i * size..][..x.len()]);
                let group = fit(format, book, x, range, importance);
                encode_group(book, x, group, codes);
                group
            });
            let groups = groups.collect();
            Row { codes, groups }
        })
        .collect();
    assemble(format, columns, &rows)
}

/// A matrix of its rows.
pub(crate) fn assemble(
    format: WeightFormat,
    columns: usize,
    rows: &[Row],
) -> Result<QuantizedMatrix, CompressError> {
    let (book, _) = levels(format, columns);
    let count = rows.len();
    let groups = format.groups(columns);
    let all = || rows.iter().flat_map(|row| &row.groups);
    let scales: Vec<f32> = all().map(|group| group.scale).collect();
    let scales = Tensor::from_vec(scales, &[count, groups])?;
    let codes = match format {
        WeightFormat::Int8 => {
            let signed = |&code: &u8| (i16::from(code) - 128) as i8;
            let codes: Vec<i8> = rows.iter().flat_map(|row| &row.codes).map(signed).collect();
            Tensor::from_vec(codes, &[count, columns])?
        }
        WeightFormat::Codes { .. } | WeightFormat::Binary => {
            let len = packed_len(book.bits(), columns);
            let mut bytes = vec![0; count * len];
            for (row, bytes) in rows.iter().zip(bytes.chunks_exact_mut(len.max(1))) {
                pack_codes(book.bits(), &row.codes, bytes);
            }
            Tensor::from_vec(bytes, &[count, len])?
        }
    };
    let zeros = match book.has_zero_points() {
        true => {
            let zeros: Vec<u8> = all().map(|group| group.zero).collect();
            Some(Tensor::from_vec(zeros, &[count, groups])?)
        }
        false => None,
    };
    QuantizedMatrix::new(format, (count, columns), codes, scales, zeros)
        .map_err(CompressError::Settings)
}
