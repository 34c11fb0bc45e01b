//! The checks: the gradient of a random projection of the output, against central differences; and f32 against f64.

use bertha_autograd::{AutogradError, Gradients, Parameter, Session, Var};
use bertha_tensor::{DType, Tensor};

type Function =
    Box<dyn Fn(&Session, &[Parameter]) -> Result<Var, AutogradError> + std::panic::RefUnwindSafe>;

/// An operation on inputs of given shapes.
pub struct Case {
    pub op: &'static str,
    shapes: Vec<Vec<usize>>,
    /// The range of the inputs' values.
    range: (f64, f64),
    function: Function,
}

impl Case {
    /// Inputs between −1.5 and 1.5.
    pub fn new(
        op: &'static str,
        shapes: &[&[usize]],
        function: impl Fn(&Session, &[Var]) -> Result<Var, AutogradError>
        + std::panic::RefUnwindSafe
        + 'static,
    ) -> Self {
        Self::with_parameters(op, shapes, move |session, inputs| {
            let vars: Vec<Var> = inputs.iter().map(Parameter::var).collect();
            function(session, &vars)
        })
    }

    /// An operation that takes some of its inputs as parameters.
    pub fn with_parameters(
        op: &'static str,
        shapes: &[&[usize]],
        function: impl Fn(&Session, &[Parameter]) -> Result<Var, AutogradError>
        + std::panic::RefUnwindSafe
        + 'static,
    ) -> Self {
        Self {
            op,
            shapes: shapes.iter().map(|shape| shape.to_vec()).collect(),
            range: (-1.5, 1.5),
            function: Box::new(function),
        }
    }

    /// Inputs of another range: where a function is not smooth, or not defined, everywhere.
    pub fn within(mut self, low: f64, high: f64) -> Self {
        self.range = (low, high);
        self
    }
}

/// Numbers between 0 and 1 that look random and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Case {
    /// The inputs, of a dtype.
    fn inputs(&self, numbers: &mut Numbers, dtype: DType) -> Vec<Parameter> {
        let (low, high) = self.range;
        let mut input = |(i, shape): (usize, &Vec<usize>)| {
            let len = shape.iter().product();
            // Rounded to f32, so that both dtypes have the same.
            let values: Vec<f64> = (0..len)
                .map(|_| f64::from((low + (high - low) * numbers.next()) as f32))
                .collect();
            let value = Tensor::from_vec(values, shape).unwrap();
            Parameter::new(format!("input {i}"), value.to_dtype(dtype).unwrap())
        };
        self.shapes.iter().enumerate().map(&mut input).collect()
    }

    fn run(&self, session: &Session, inputs: &[Parameter]) -> Var {
        (self.function)(session, inputs).unwrap_or_else(|error| panic!("{}: {error}", self.op))
    }

    /// Output and gradients, with the weights of the projection that they are of.
    fn backward(&self, dtype: DType, threads: usize) -> Run {
        let session = Session::new(Some(threads)).unwrap();
        let mut numbers = Numbers(7);
        let inputs = self.inputs(&mut numbers, dtype);
        let y = self.run(&session, &inputs);
        assert_eq!(y.dtype(), dtype, "{}", self.op);
        let weights: Vec<f64> = (0..y.tensor().numel())
            .map(|_| f64::from((numbers.next() - 0.5) as f32))
            .collect();
        let mut gradients = Gradients::new();
        let projection = Tensor::from_slice(&weights, y.shape()).unwrap();
        y.backward_with(
            &session,
            projection.to_dtype(dtype).unwrap(),
            &mut gradients,
        )
        .unwrap_or_else(|error| panic!("{}: {error}", self.op));
        let gradient = |(i, input): (usize, &Parameter)| {
            let gradient = gradients.get(input);
            let gradient =
                gradient.unwrap_or_else(|| panic!("{}: no gradient for input {i}", self.op));
            assert_eq!(gradient.shape(), input.shape(), "{}: input {i}", self.op);
            values(gradient)
        };
        Run {
            output: values(y.tensor()),
            gradients: inputs.iter().enumerate().map(gradient).collect(),
            session,
            inputs,
            weights,
        }
    }
}

struct Run {
    session: Session,
    inputs: Vec<Parameter>,
    weights: Vec<f64>,
    output: Vec<f64>,
    gradients: Vec<Vec<f64>>,
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

/// Fails unless f32 gives the output and the gradients of f64, up to rounding, and the same bits on three threads.
pub fn check_f32(case: &Case) {
    let (double, single) = (case.backward(DType::F64, 1), case.backward(DType::F32, 1));
    let agree = |what: &str, single: &[f64], double: &[f64]| {
        assert_eq!(single.len(), double.len(), "{}: {what}", case.op);
        for (i, (single, double)) in single.iter().zip(double).enumerate() {
            assert!(
                (single - double).abs() <= 2e-5 * (1.0 + double.abs()),
                "{}: {what}, value {i} is {single} in f32 and {double} in f64",
                case.op
            );
        }
    };
    agree("the output", &single.output, &double.output);
    for (i, (single, double)) in single.gradients.iter().zip(&double.gradients).enumerate() {
        agree(&format!("the gradient of input {i}"), single, double);
    }
    let threads = case.backward(DType::F32, 3);
    assert_eq!(threads.output, single.output, "{}: threads", case.op);
    assert_eq!(threads.gradients, single.gradients, "{}: threads", case.op);
}

/// Fails unless what an operation gives its inputs adds up with what they have: those of an operation that is used twice have
/// twice the gradient.
pub fn check_sums(case: &Case) {
    for dtype in [DType::F64, DType::F32] {
        let run = case.backward(dtype, 1);
        let mut gradients = Gradients::new();
        for _ in 0..2 {
            let y = case.run(&run.session, &run.inputs);
            let projection = Tensor::from_slice(&run.weights, y.shape()).unwrap();
            let projection = projection.to_dtype(dtype).unwrap();
            y.backward_with(&run.session, projection, &mut gradients)
                .unwrap();
        }
        for (i, (input, once)) in run.inputs.iter().zip(&run.gradients).enumerate() {
            for (twice, once) in values(gradients.get(input).unwrap()).iter().zip(once) {
                assert!(
                    (twice - 2.0 * once).abs() <= 2e-6 * (1.0 + once.abs()),
                    "{}: input {i} of {dtype} has {once} after one use, {twice} after two",
                    case.op
                );
            }
        }
    }
}

/// Fails unless every partial derivative of every input agrees to 1e-6, in f64.
pub fn check(case: &Case) {
    let Run {
        session,
        inputs,
        weights,
        gradients,
        ..
    } = case.backward(DType::F64, 1);
    let loss = || -> f64 {
        let y = case.run(&session, &inputs);
        let y = y.tensor().to_vec::<f64>().unwrap();
        y.iter().zip(&weights).map(|(y, w)| y * w).sum()
    };
    const STEP: f64 = 1e-5;
    for (i, (input, found)) in inputs.iter().zip(&gradients).enumerate() {
        for (at, &found) in found.iter().enumerate() {
            let moved = |by: f64| input.update(|values: &mut [f64]| values[at] += by).unwrap();
            moved(STEP);
            let above = loss();
            moved(-2.0 * STEP);
            let below = loss();
            moved(STEP);
            let expected = (above - below) / (2.0 * STEP);
            assert!(
                (found - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                "{}: d/d(input {i})[{at}] is {found}, by differences {expected}",
                case.op
            );
        }
    }
}
