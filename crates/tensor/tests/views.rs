//! Views of a tensor against the same views of an `ndarray` array, by random chains of operations.

use bertha_tensor::{DType, Pool, Tensor, TensorError, bf16};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use proptest::prelude::*;

/// One step of a chain. The numbers are taken modulo what the shape at hand allows.
#[derive(Clone, Copy, Debug)]
enum Step {
    Narrow(usize, usize, usize),
    Select(usize, usize),
    Transpose(usize, usize),
    Rotate(usize),
    Unsqueeze(usize),
    Squeeze(usize),
    Broadcast(usize, usize),
    Reshape(usize),
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..1000_usize;
    prop_oneof![
        (n(), n(), n()).prop_map(|(a, b, c)| Step::Narrow(a, b, c)),
        (n(), n()).prop_map(|(a, b)| Step::Select(a, b)),
        (n(), n()).prop_map(|(a, b)| Step::Transpose(a, b)),
        n().prop_map(Step::Rotate),
        n().prop_map(Step::Unsqueeze),
        n().prop_map(Step::Squeeze),
        (n(), n()).prop_map(|(a, b)| Step::Broadcast(a, b)),
        n().prop_map(Step::Reshape),
        Just(Step::Copy),
    ]
}

/// Applies a step to both. `None` where the step makes no sense for the shape.
fn apply(step: Step, x: &Tensor, a: &ArrayD<i32>) -> Option<(Tensor, ArrayD<i32>)> {
    let shape = x.shape().to_vec();
    let rank = shape.len();
    let dim_of = |n: usize| (rank > 0).then(|| n % rank);
    Some(match step {
        Step::Narrow(dim, start, len) => {
            let dim = dim_of(dim)?;
            let start = start % (shape[dim] + 1);
            let len = len % (shape[dim] - start + 1);
            let slice = Slice::from(start..start + len);
            (
                x.narrow(dim, start, len).unwrap(),
                a.slice_axis(Axis(dim), slice).to_owned(),
            )
        }
        Step::Select(dim, index) => {
            let dim = dim_of(dim)?;
            let index = (shape[dim] > 0).then(|| index % shape[dim])?;
            (
                x.select(dim, index).unwrap(),
                a.index_axis(Axis(dim), index).to_owned(),
            )
        }
        Step::Transpose(from, to) => {
            let (from, to) = (dim_of(from)?, dim_of(to)?);
            let mut b = a.clone();
            b.swap_axes(from, to);
            (x.transpose(from, to).unwrap(), b)
        }
        Step::Rotate(by) => {
            let by = dim_of(by)?;
            let axes: Vec<usize> = (0..rank).map(|i| (i + by) % rank).collect();
            (
                x.permute(&axes).unwrap(),
                a.clone().permuted_axes(IxDyn(&axes)),
            )
        }
        Step::Unsqueeze(dim) => {
            let dim = dim % (rank + 1);
            (x.unsqueeze(dim).unwrap(), a.clone().insert_axis(Axis(dim)))
        }
        Step::Squeeze(dim) => {
            let dim = dim_of(dim)?;
            if shape[dim] != 1 {
                let error = x.squeeze(dim).unwrap_err();
                assert!(matches!(error, TensorError::Squeeze { .. }));
                return None;
            }
            (x.squeeze(dim).unwrap(), a.clone().remove_axis(Axis(dim)))
        }
        Step::Broadcast(dim, size) => {
            let dim = dim_of(dim)?;
            if shape[dim] != 1 {
                return None;
            }
            let mut wide = vec![size % 3; 1];
            wide.extend(&shape);
            wide[dim + 1] = size % 5;
            let b = a.broadcast(IxDyn(&wide)).unwrap().to_owned();
            (x.broadcast_to(&wide).unwrap(), b)
        }
        Step::Reshape(how) => {
            let numel = x.numel();
            let to = match how % 4 {
                0 => vec![numel],
                1 => vec![1, numel, 1],
                2 if numel.is_multiple_of(2) => vec![2, numel / 2],
                _ => vec![numel, 1],
            };
            let b = ArrayD::from_shape_vec(IxDyn(&to), a.iter().copied().collect()).unwrap();
            (x.reshape(&to).unwrap(), b)
        }
        Step::Copy => (x.copy(), a.clone()),
    })
}

fn check(x: &Tensor, a: &ArrayViewD<'_, i32>) {
    let expected: Vec<i32> = a.iter().copied().collect();
    assert_eq!(x.shape(), a.shape());
    assert_eq!(x.numel(), expected.len());
    assert_eq!(x.size_in_bytes(), expected.len() * 4);
    assert_eq!(x.to_vec::<i32>().unwrap(), expected);
    assert_eq!(x.view::<i32>().unwrap(), *a);
    assert_eq!(x.to_ndarray::<i32>().unwrap(), *a);
    assert_eq!(x.contiguous().as_slice::<i32>().unwrap(), expected);
    let bytes: &[u8] = bytemuck::cast_slice(&expected);
    assert_eq!(x.contiguous().as_bytes().unwrap(), bytes);
    match x.as_slice::<i32>() {
        Ok(slice) => assert!(x.is_contiguous() && slice == expected),
        Err(error) => {
            assert!(!x.is_contiguous());
            assert!(matches!(error, TensorError::NotContiguous { .. }));
        }
    }
    let cast: Vec<f64> = expected.iter().map(|&value| value.into()).collect();
    let doubled = x.to_dtype(DType::F64).unwrap();
    assert_eq!(doubled.as_slice::<f64>().unwrap(), cast);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_chain_of_views_is_ndarrays(
        shape in prop::collection::vec(0..5_usize, 0..5),
        steps in prop::collection::vec(step(), 0..8),
    ) {
        let numel: usize = shape.iter().product();
        let values: Vec<i32> = (0..numel as i32).collect();
        let mut array = ArrayD::from_shape_vec(IxDyn(&shape), values.clone()).unwrap();
        let original = Tensor::from_vec(values.clone(), &shape).unwrap();
        let mut tensor = original.clone();
        check(&tensor, &array.view());
        for step in steps {
            // Repeated broadcasts grow fast.
            if tensor.numel() > 2000 || tensor.rank() > 9 {
                break;
            }
            if let Some((next, next_array)) = apply(step, &tensor, &array) {
                (tensor, array) = (next, next_array);
                check(&tensor, &array.view());
            }
        }

        // Writing to the last view changes it alone.
        tensor.as_mut_slice::<i32>().unwrap().iter_mut().for_each(|value| *value += 1);
        array += 1;
        check(&tensor, &array.view());
        prop_assert_eq!(original.to_vec::<i32>().unwrap(), values);
    }

    #[test]
    fn arguments_that_fit_no_shape_are_errors(
        shape in prop::collection::vec(0..4_usize, 0..4),
        dim in 0..8_usize,
        start in prop_oneof![0..6_usize, Just(usize::MAX)],
        len in prop_oneof![0..6_usize, Just(usize::MAX)],
        axes in prop::collection::vec(0..5_usize, 0..5),
    ) {
        let x = Tensor::zeros(DType::U8, &shape).unwrap();
        let fits = dim < shape.len();
        let inside = fits && start.checked_add(len).is_some_and(|end| end <= shape[dim]);
        prop_assert_eq!(x.narrow(dim, start, len).is_ok(), inside);
        prop_assert_eq!(x.slice(dim, start..start.saturating_add(len)).is_ok(), inside);
        prop_assert_eq!(x.select(dim, start).is_ok(), fits && start < shape[dim]);
        prop_assert_eq!(x.transpose(0, dim).is_ok(), fits);
        prop_assert_eq!(x.unsqueeze(dim).is_ok(), dim <= shape.len());
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        let permutes = sorted == (0..shape.len()).collect::<Vec<_>>();
        prop_assert_eq!(x.permute(&axes).is_ok(), permutes);
        let fits = ArrayD::<u8>::zeros(IxDyn(&shape)).broadcast(IxDyn(&axes)).is_some();
        prop_assert_eq!(x.broadcast_to(&axes).is_ok(), fits);
        let same = axes.iter().product::<usize>() == x.numel();
        prop_assert_eq!(x.reshape(&axes).is_ok(), same);
    }
}

#[test]
fn views_share_and_writing_copies_only_what_is_shared() {
    let mut x = Tensor::from_vec(vec![1_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]).unwrap();
    let at = |x: &Tensor| x.view::<f32>().unwrap().as_ptr();
    let start = at(&x);
    assert_eq!(at(&x.transpose(0, 1).unwrap()), start);
    assert_eq!(at(&x.reshape(&[3, 2]).unwrap()), start);
    assert_eq!(at(&x.select(0, 1).unwrap()), start.wrapping_add(3));

    x.as_mut_slice::<f32>().unwrap()[0] = 9.0;
    assert_eq!(at(&x), start, "a sole owner writes in place");
    let shared = x.select(0, 0).unwrap();
    x.as_mut_slice::<f32>().unwrap()[0] = 1.0;
    assert_ne!(at(&x), start, "what is shared is copied first");
    assert_eq!(shared.to_vec::<f32>().unwrap(), [9.0, 2.0, 3.0]);

    // The last owner of a part writes into that part.
    let mut shared = shared;
    shared.as_mut_slice::<f32>().unwrap()[1] = 7.0;
    assert_eq!(at(&shared), start);
    assert_eq!(shared.as_slice::<f32>().unwrap(), [9.0, 7.0, 3.0]);
}

#[test]
fn typed_access_is_checked() {
    let x = Tensor::from_vec(vec![bf16::ONE; 4], &[2, 2]).unwrap();
    let error = x.as_slice::<f32>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tensor of shape [2, 2] holds bf16, but f32 was asked for; convert it with to_dtype first"
    );
    let mut x = x;
    assert!(x.as_mut_slice::<f32>().is_err());
    assert!(x.view::<i64>().is_err() && x.to_vec::<bool>().is_err() && x.item::<f32>().is_err());
    assert_eq!(
        x.item::<bf16>().unwrap_err().to_string(),
        "item() needs a tensor of exactly one element, but the shape is [2, 2]"
    );
    let error = Tensor::from_vec(vec![0_u8; 5], &[2, 3]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "shape [2, 3] needs 6 elements, but 5 were given"
    );
    let huge = [usize::MAX, 3];
    assert!(matches!(
        Tensor::from_vec(vec![0_u8; 5], &huge).unwrap_err(),
        TensorError::TooLarge { .. }
    ));
    assert!(Tensor::zeros(DType::U8, &huge).is_err());
    assert!(
        Tensor::from_vec(vec![0_u8], &[1])
            .unwrap()
            .broadcast_to(&huge)
            .is_err()
    );
}

type Maker = fn(&Pool, DType, &[usize]) -> Result<Tensor, TensorError>;

#[test]
fn owned_tensors_are_aligned_to_64_bytes_and_return_to_their_pool() {
    let pool = Pool::default();
    for dtype in DType::ALL {
        for shape in [&[][..], &[0], &[3], &[5, 7, 11]] {
            let makers: [Maker; 3] = [Tensor::zeros_in, Tensor::scratch_in, |_, dtype, shape| {
                Tensor::zeros(dtype, shape)
            }];
            for make in makers {
                let x = make(&pool, dtype, shape).unwrap();
                assert_eq!(x.copy().as_bytes().unwrap(), x.as_bytes().unwrap());
                if x.numel() > 0 {
                    assert!(x.as_bytes().unwrap().as_ptr().addr().is_multiple_of(64));
                }
            }
        }
    }
    // Results of a pooled tensor come from its pool: nothing new is allocated for this.
    let before = pool.stats();
    let x = Tensor::zeros_in(&pool, DType::F32, &[5, 7, 11]).unwrap();
    let half = x.to_dtype(DType::Bf16).unwrap();
    let copy = half.copy();
    let after = pool.stats();
    assert_eq!(after.hits + after.misses, before.hits + before.misses + 3);
    drop((x, half, copy));
    assert!(pool.stats().kept_bytes > 0);
}

#[test]
fn display_shows_type_shape_and_first_values() {
    let x = Tensor::from_vec(vec![1_i64, 2, 3, 4, 5, 6], &[2, 3]).unwrap();
    assert_eq!(x.to_string(), "i64 [2, 3]: 1, 2, 3, 4, 5, 6");
    let t = x.transpose(0, 1).unwrap();
    assert_eq!(
        format!("{t:?}"),
        "Tensor(i64 [3, 2]: 1, 4, 2, 5, 3, 6; strides [1, 3])"
    );
    let zeros = Tensor::zeros(DType::Bool, &[3, 3]).unwrap();
    assert_eq!(
        zeros.to_string(),
        "bool [3, 3]: false, false, false, false, false, false, false, false, ..."
    );
    assert_eq!(
        Tensor::zeros(DType::F32, &[0]).unwrap().to_string(),
        "f32 [0]:"
    );
}
