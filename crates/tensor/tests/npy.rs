//! `.npy` files: NumPy's own bytes, a round trip, and damage.

mod common;

use bertha_tensor::{DType, Tensor, bf16, npy};
use common::Folder;
use proptest::prelude::*;

/// What `numpy.save` (2.4.6) writes: the dictionary padded with spaces to 118 bytes with its newline.
fn numpys(dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{dictionary:<117}\n").bytes());
    assert_eq!(bytes.len(), 128);
    bytes.extend(data);
    bytes
}

const MATRIX: &str = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

fn matrix() -> Tensor {
    Tensor::from_vec(vec![1_f32, -2.0, 3.5, 0.0, 1e-40, f32::MAX], &[2, 3]).unwrap()
}

#[test]
fn numpys_bytes_are_written_and_read() {
    let folder = Folder::new();
    let path = folder.join("x.npy");
    let counting = |n: i64| Tensor::from_vec((0..n).collect(), &[n as usize]).unwrap();
    let scalar = counting(3).select(0, 2).unwrap();
    for (dictionary, tensor) in [
        (MATRIX, matrix()),
        (
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), }",
            counting(3),
        ),
        (
            "{'descr': '<i8', 'fortran_order': False, 'shape': (0,), }",
            counting(0),
        ),
        (
            "{'descr': '<i8', 'fortran_order': False, 'shape': (), }",
            scalar,
        ),
    ] {
        let bytes = numpys(dictionary, tensor.as_bytes().unwrap());
        npy::write(&path, &tensor).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{dictionary}");
        let read = npy::read(&path).unwrap();
        assert_eq!(
            (read.dtype(), read.shape()),
            (tensor.dtype(), tensor.shape())
        );
        assert_eq!(read.as_bytes().unwrap(), tensor.as_bytes().unwrap());
    }
}

#[test]
fn every_dtype_but_bf16_and_any_layout_survives() {
    let folder = Folder::new();
    let path = folder.join("x.npy");
    let base = Tensor::from_vec((0..24_i64).collect(), &[2, 3, 4]).unwrap();
    let base = base.permute(&[2, 0, 1]).unwrap();
    for dtype in DType::ALL {
        let tensor = base.to_dtype(dtype).unwrap();
        if dtype == DType::Bf16 {
            let text = npy::write(&path, &tensor).unwrap_err().to_string();
            assert!(
                text.ends_with(
                    "NumPy has no element type like bf16; convert the tensor to f32 first"
                )
            );
            continue;
        }
        npy::write(&path, &tensor).unwrap();
        let read = npy::read(&path).unwrap();
        assert_eq!((read.dtype(), read.shape()), (dtype, tensor.shape()));
        assert_eq!(
            read.as_bytes().unwrap(),
            tensor.contiguous().as_bytes().unwrap()
        );
        // NumPy maps a file whose elements start at a multiple of 64.
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        assert!((len - tensor.size_in_bytes()).is_multiple_of(64));
    }
    assert!(npy::header(DType::Bf16, &[bf16::ONE.to_bits().into()]).is_none());
    assert!(
        npy::header(DType::F32, &[1; 30_000]).is_none(),
        "more dimensions than the length has room for"
    );
}

#[test]
fn other_files_are_errors_that_say_why() {
    let folder = Folder::new();
    let data = [0_u8; 24];
    let with = |from: &str, to: &str| numpys(&MATRIX.replace(from, to), &data);
    for (bytes, says) in [
        (vec![], "this is no .npy file of version 1.0"),
        (
            b"PK\x03\x04 an npz file".to_vec(),
            "this is no .npy file of version 1.0",
        ),
        (with("x", "x")[..9].to_vec(), "the header is cut off"),
        (with("x", "x")[..60].to_vec(), "the header is cut off"),
        (
            with("<f4", ">f4"),
            "the elements are \">f4\", expected one of '<f4', '<f8', '<f2', ",
        ),
        (with("'<f4'", "[('a', '<f4')]"), "the header has no 'descr'"),
        (with("descr", "dtype"), "the header has no 'descr'"),
        (
            with("False", "True"),
            "the elements are not in C order ('fortran_order': False)",
        ),
        (with("shape", "sizes"), "the header has no 'shape'"),
        (with("(2, 3)", "(2, x)"), "\"x\" in 'shape' is no size"),
        (with("(2, 3)", "(-2, 3)"), "\"-2\" in 'shape' is no size"),
        (
            with("(2, 3)", "(2, 4)"),
            "shape [2, 4] of f32 needs 32 bytes, but 24 follow the header",
        ),
        (
            with("(2, 3)", "(9999999999, 9999999999)"),
            "larger than memory can address",
        ),
        (
            with("<f4", "<i8"),
            "shape [2, 3] of i64 needs 48 bytes, but 24 follow the header",
        ),
        (
            numpys(
                "{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }",
                &[2],
            ),
            "a bool tensor must consist of bytes 0 and 1",
        ),
    ] {
        let path = folder.write("x.npy", bytes);
        let text = npy::read(&path).unwrap_err().to_string();
        assert!(text.starts_with(&path.display().to_string()), "{text}");
        assert!(text.contains(says), "{says}\n{text}");
    }
    let text = npy::read(folder.join("none.npy")).unwrap_err().to_string();
    assert!(text.contains("none.npy: cannot read: "), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any change of any bytes gives a tensor or an error, and a tensor has what its shape says.
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((0..160_usize, any::<u8>()), 0..4), cut in 0..200_usize) {
        let mut bytes = numpys(MATRIX, matrix().as_bytes().unwrap());
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(1));
        let path = Folder::new();
        if let Ok(tensor) = npy::read(path.write("x.npy", &bytes)) {
            prop_assert_eq!(tensor.as_bytes().unwrap().len(), tensor.numel() * tensor.dtype().size());
        }
    }
}
