//! NumPy's `.npy` files, format version 1.0, in C order: every dtype that NumPy has too (all but `bf16`).
//!
//! Layout: `\x93NUMPY`, the version, a `u16` length, a Python dictionary such as
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, padded with spaces to a multiple of 64 and ended by a
//! newline; then the elements. <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::shape::checked_numel;
use crate::{AtomicFile, Buffer, DType, FileError, Tensor};

const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
const ALIGN: usize = 64;
const REMEDY: &str =
    "write it with numpy.save from numpy.ascontiguousarray(array) of a dtype that bertha has";
/// Element types and NumPy's names of them.
const TYPES: [(DType, &str); 8] = [
    (DType::F32, "<f4"),
    (DType::F64, "<f8"),
    (DType::F16, "<f2"),
    (DType::I64, "<i8"),
    (DType::I32, "<i4"),
    (DType::U8, "|u1"),
    (DType::I8, "|i1"),
    (DType::Bool, "|b1"),
];

/// The bytes that come before the elements, for writers that produce those row by row. `None` for
/// `bf16`, which NumPy does not have.
pub fn header(dtype: DType, shape: &[usize]) -> Option<Vec<u8>> {
    let (_, descr) = TYPES
        .into_iter()
        .find(|(supported, _)| *supported == dtype)?;
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    // A tuple of one is `(3,)`, of several `(2, 3)`.
    let sizes = if shape.len() == 1 {
        sizes.trim_end()
    } else {
        sizes.trim_end_matches(", ")
    };
    let dictionary =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let start = MAGIC.len() + 2;
    let len = (start + dictionary.len() + 1).next_multiple_of(ALIGN) - start;
    let mut bytes = MAGIC.to_vec();
    // Version 1.0 has 65535 bytes of header: room for thousands of dimensions.
    bytes.extend(u16::try_from(len).ok()?.to_le_bytes());
    bytes.extend(dictionary.bytes());
    bytes.resize(start + len - 1, b' ');
    bytes.push(b'\n');
    Some(bytes)
}

/// Writes a tensor of any layout; the file appears under its name only when complete.
///
/// # Errors
/// [`FileError::Malformed`] for `bf16`; [`FileError::Io`] if the file cannot be written.
pub fn write(path: impl AsRef<Path>, tensor: &Tensor) -> Result<(), FileError> {
    let path = path.as_ref();
    let header = header(tensor.dtype(), tensor.shape()).ok_or_else(|| FileError::Malformed {
        path: path.to_path_buf(),
        problem: format!("NumPy has no element type like {}", tensor.dtype()),
        remedy: "convert the tensor to f32 first",
    })?;
    let row_major = tensor.contiguous();
    let bytes = row_major.as_bytes().map_err(|source| FileError::Tensor {
        path: path.to_path_buf(),
        tensor: "npy".into(),
        source,
    })?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&header)
        .map_err(FileError::io(path, "write"))?;
    file.write_all(bytes)
        .map_err(FileError::io(path, "write"))?;
    file.commit()
}

/// Reads an `.npy` file.
///
/// # Errors
/// [`FileError`] if the file cannot be read, is damaged, or holds another type, byte order or element order.
pub fn read(path: impl AsRef<Path>) -> Result<Tensor, FileError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(FileError::io(path, "read"))?;
    parse(&bytes).map_err(|problem| FileError::Malformed {
        path: path.to_path_buf(),
        problem,
        remedy: REMEDY,
    })
}

fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("this is no .npy file of version 1.0")?;
    let cut = "the header is cut off";
    let (len, rest) = rest.split_first_chunk::<2>().ok_or(cut)?;
    let (header, data) = rest
        .split_at_checked(u16::from_le_bytes(*len).into())
        .ok_or(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "the header is no text")?;

    let descr =
        after(header, "'descr':").and_then(|text| text.strip_prefix('\'')?.split('\'').next());
    let descr = descr.ok_or_else(|| format!("the header has no 'descr': {header:?}"))?;
    let dtype = TYPES
        .into_iter()
        .find(|(_, name)| *name == descr)
        .map(|(dtype, _)| dtype);
    let dtype =
        dtype.ok_or_else(|| format!("the elements are {descr:?}, expected one of {}", names()))?;
    if !after(header, "'fortran_order':").is_some_and(|text| text.starts_with("False")) {
        return Err("the elements are not in C order ('fortran_order': False)".into());
    }
    let shape = after(header, "'shape':").and_then(|text| text.strip_prefix('(')?.split_once(')'));
    let (sizes, _) = shape.ok_or_else(|| format!("the header has no 'shape': {header:?}"))?;
    let sizes = sizes
        .split(',')
        .map(str::trim)
        .filter(|size| !size.is_empty());
    let shape: Vec<usize> = sizes
        .map(|size| {
            size.parse()
                .map_err(|_| format!("{size:?} in 'shape' is no size"))
        })
        .collect::<Result<_, String>>()?;

    let expected = checked_numel(&shape, dtype).map_err(|error| error.to_string())? * dtype.size();
    if data.len() != expected {
        return Err(format!(
            "shape {shape:?} of {dtype} needs {expected} bytes, but {} follow the header",
            data.len()
        ));
    }
    let mut buffer = Buffer::zeroed(expected);
    buffer.as_bytes_mut().copy_from_slice(data);
    Tensor::from_buffer(buffer, dtype, &shape).map_err(|error| error.to_string())
}

fn names() -> String {
    TYPES.map(|(_, name)| format!("'{name}'")).join(", ")
}

/// What follows `key` in the dictionary, without leading blanks.
fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    header.split_once(key).map(|(_, rest)| rest.trim_start())
}
