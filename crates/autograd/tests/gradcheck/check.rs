//! The check: the gradient of a random projection of the output, against central differences.

use bertha_autograd::{AutogradError, Gradients, Parameter, Session, Var};
use bertha_tensor::Tensor;

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

/// Fails unless every partial derivative of every input agrees to 1e-6.
pub fn check(case: &Case) {
    let session = Session::new(Some(1)).unwrap();
    let mut numbers = Numbers(7);
    let (low, high) = case.range;
    let inputs: Vec<Parameter> = case
        .shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let len = shape.iter().product();
            let values = (0..len)
                .map(|_| low + (high - low) * numbers.next())
                .collect();
            Parameter::new(
                format!("input {i}"),
                Tensor::from_vec::<f64>(values, shape).unwrap(),
            )
        })
        .collect();
    let run = || {
        let result = (case.function)(&session, &inputs);
        result.unwrap_or_else(|error| panic!("{}: {error}", case.op))
    };
    let y = run();
    let weights: Vec<f64> = (0..y.tensor().numel())
        .map(|_| numbers.next() - 0.5)
        .collect();
    let mut gradients = Gradients::new();
    let projection = Tensor::from_vec(weights.clone(), y.shape()).unwrap();
    y.backward_with(&session, projection, &mut gradients)
        .unwrap_or_else(|error| panic!("{}: {error}", case.op));

    let loss = || -> f64 {
        let y = run().tensor().to_vec::<f64>().unwrap();
        y.iter().zip(&weights).map(|(y, w)| y * w).sum()
    };
    const STEP: f64 = 1e-5;
    for (i, input) in inputs.iter().enumerate() {
        let found = gradients
            .get(input)
            .map(|gradient| gradient.to_vec::<f64>().unwrap());
        let found = found.unwrap_or_else(|| panic!("{}: no gradient for input {i}", case.op));
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
