//! A weight that was packed for inference keeps nothing that a gradient could be computed from.

use bertha_autograd::{AutogradError, LinearWeight, Parameter, Session, Var, ops};
use bertha_kernels::{Activation, PackedFormat, PackedWeights, WeightSource};
use bertha_tensor::Tensor;

#[test]
fn a_tracked_input_is_refused_and_another_is_not() {
    let session = Session::new(Some(1)).unwrap();
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let source = [(WeightSource::F32(&values), 2)];
    let packed = PackedWeights::pack_stacked(session.exec(), &source, 3, PackedFormat::F32);
    let weight = LinearWeight::packed(packed, None).unwrap();
    let x = Parameter::new(
        "x",
        Tensor::from_vec(vec![1.0f32, 0.0, -1.0], &[1, 3]).unwrap(),
    );
    let run = |x: &Var| ops::linear(&session, x, &weight, Activation::None, None);
    let y = run(&x.var().detach()).unwrap();
    assert_eq!(y.as_slice().unwrap(), [-2.0, -2.0]);
    let error = run(&x.var()).err().unwrap();
    assert!(matches!(error, AutogradError::NoBackward { .. }), "{error}");
    assert!(
        error.to_string().contains("packed for inference"),
        "{error}"
    );
}
