//! `ndarray` arrays in and out: the same values, and no copy where the layout allows.

use bertha_tensor::{DType, Tensor, f16};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn, arr0, array, s};
use proptest::prelude::*;

#[test]
fn owned_arrays_move_in_and_out_without_a_copy() {
    let a = array![[1_f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    let start = a.as_ptr();
    let x = Tensor::from_ndarray(a).unwrap();
    assert_eq!((x.shape(), x.dtype()), (&[2, 3][..], DType::F32));
    assert_eq!(x.as_slice::<f32>().unwrap().as_ptr(), start);
    let view = x.view::<f32>().unwrap();
    assert_eq!((view.as_ptr(), view[[1, 0]]), (start, 4.0));
    drop(view);
    let back = x.into_ndarray::<f32>().unwrap();
    assert_eq!(back.as_ptr(), start);
    assert_eq!(back, array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].into_dyn());
}

#[test]
fn column_major_arrays_move_in_with_their_strides() {
    let a = array![[1_i32, 2, 3], [4, 5, 6]].reversed_axes();
    let start = a.as_ptr();
    let x = Tensor::from_ndarray(a).unwrap();
    assert_eq!(x.view::<i32>().unwrap().as_ptr(), start);
    assert_eq!((x.shape(), x.strides()), (&[3, 2][..], &[1, 3][..]));
    assert_eq!(x.to_vec::<i32>().unwrap(), [1, 4, 2, 5, 3, 6]);
    assert_eq!(x.into_vec::<i32>().unwrap(), [1, 4, 2, 5, 3, 6]);
}

#[test]
fn sliced_owned_arrays_keep_their_allocation() {
    let a = Array2::from_shape_fn((5, 4), |(i, j)| (i * 4 + j) as i64);
    let start = a.as_ptr();
    let part = a.slice_move(s![1..4, 1..;2]);
    let x = Tensor::from_ndarray(part.clone()).unwrap();
    assert_eq!(x.to_vec::<i64>().unwrap(), [5, 7, 9, 11, 13, 15]);
    let x = Tensor::from_ndarray(part).unwrap();
    assert_eq!(x.view::<i64>().unwrap().as_ptr(), start.wrapping_add(5));
    assert_eq!(x.to_vec::<i64>().unwrap(), [5, 7, 9, 11, 13, 15]);
}

#[test]
fn arrays_that_run_backwards_and_views_are_copied() {
    let mut a = Array1::from_iter(0_u8..6);
    a.invert_axis(Axis(0));
    let x = Tensor::from_ndarray(a.view()).unwrap();
    assert_eq!(x.to_vec::<u8>().unwrap(), [5, 4, 3, 2, 1, 0]);
    assert_eq!(
        Tensor::from_ndarray(a).unwrap().as_slice::<u8>().unwrap(),
        [5, 4, 3, 2, 1, 0]
    );

    let wide = arr0(true);
    let x = Tensor::from_ndarray(wide.broadcast((2, 2)).unwrap()).unwrap();
    assert_eq!(x.to_vec::<bool>().unwrap(), [true; 4]);
    assert_eq!(Tensor::from_ndarray(wide).unwrap().shape(), [0_usize; 0]);

    let shared = Array1::from_elem(3, f16::ONE).into_shared();
    let other = shared.clone();
    let mut x = Tensor::from_ndarray(shared).unwrap();
    x.as_mut_slice::<f16>().unwrap()[0] = f16::ZERO;
    assert_eq!(other[0], f16::ONE);
}

#[test]
fn vectors_come_back_only_to_their_last_owner() {
    let values = vec![1_i8, 2, 3, 4];
    let start = values.as_ptr();
    let x = Tensor::from_vec(values, &[2, 2]).unwrap();
    let other = x.clone();
    let copy = x.into_vec::<i8>().unwrap();
    assert_ne!(copy.as_ptr(), start);
    let part = other.select(0, 1).unwrap();
    drop(other);
    assert_eq!(part.into_vec::<i8>().unwrap(), [3, 4]);
    let x = Tensor::from_vec(copy, &[4]).unwrap();
    assert!(x.clone().into_vec::<u8>().is_err());
    assert_eq!(x.into_vec::<i8>().unwrap(), [1, 2, 3, 4]);
}

proptest! {
    /// Any owned array, sliced with any step and permuted, keeps its values.
    #[test]
    fn any_array_keeps_its_values(
        shape in prop::collection::vec(1..6_usize, 1..4),
        cuts in prop::collection::vec((0..6_usize, 0..6_usize, 1..4_isize, any::<bool>()), 3),
        rotate in 0..3_usize,
    ) {
        let numel: usize = shape.iter().product();
        let mut a = ArrayD::from_shape_vec(IxDyn(&shape), (0..numel as i64).collect()).unwrap();
        for (dim, &(start, len, step, backwards)) in (0..shape.len()).zip(&cuts) {
            let start = start % shape[dim];
            let end = (start + len).min(shape[dim]);
            a.slice_axis_inplace(Axis(dim), ndarray::Slice::new(start as isize, Some(end as isize), step));
            if backwards {
                a.invert_axis(Axis(dim));
            }
        }
        let axes: Vec<usize> = (0..shape.len()).map(|i| (i + rotate) % shape.len()).collect();
        let a = a.permuted_axes(IxDyn(&axes));
        for x in [Tensor::from_ndarray(a.view()).unwrap(), Tensor::from_ndarray(a.clone()).unwrap()] {
            prop_assert_eq!(x.view::<i64>().unwrap(), a.view());
            prop_assert_eq!(x.into_ndarray::<i64>().unwrap(), a.view());
        }
    }
}
