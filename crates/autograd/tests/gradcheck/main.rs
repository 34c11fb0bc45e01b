//! Every operation with a backward is checked in f64 against finite differences. A case per operation: one
//! that is in the registry and has none fails the test.

mod cases;
mod check;
mod general;

use bertha_autograd::ops::REGISTRY;

#[test]
fn every_operation_with_a_backward_passes() {
    let cases = cases::all();
    for op in REGISTRY.iter().filter(|op| op.has_backward) {
        assert!(
            cases.iter().any(|case| case.op == op.name),
            "operation `{}` has a backward, but no case in tests/gradcheck/cases.rs",
            op.name
        );
    }
    for case in &cases {
        assert!(
            REGISTRY
                .iter()
                .any(|op| op.name == case.op && op.has_backward),
            "`{}` is no operation with a backward",
            case.op
        );
        check::check(case);
    }
}

#[test]
fn f32_agrees_with_f64() {
    cases::all().iter().for_each(check::check_f32);
}

#[test]
fn gradients_of_inputs_used_twice_add_up() {
    cases::all().iter().for_each(check::check_sums);
}

#[test]
fn a_wrong_gradient_is_seen() {
    let wrong = check::Case::new("mul", &[&[3], &[3]], |session, x| {
        // x₀·x₁ whose second factor is cut off: the check must miss its gradient.
        bertha_autograd::ops::mul(session, &x[0], &x[1].detach())
    });
    let result = std::panic::catch_unwind(|| check::check(&wrong));
    assert!(result.is_err(), "the check let a lost gradient pass");
}
