//! A case or more for each operation.

use bertha_autograd::ops;

use crate::check::Case;

pub fn all() -> Vec<Case> {
    vec![
        Case::new("add", &[&[2, 3], &[3]], |s, x| ops::add(s, &x[0], &x[1])),
        Case::new("sub", &[&[2, 1, 3], &[4, 1]], |s, x| {
            ops::sub(s, &x[0], &x[1])
        }),
        Case::new("mul", &[&[2, 3], &[2, 1]], |s, x| ops::mul(s, &x[0], &x[1])),
        // An input that comes twice: its gradients add up.
        Case::new("mul", &[&[4]], |s, x| ops::mul(s, &x[0], &x[0])),
        Case::new("div", &[&[2, 3], &[3]], |s, x| ops::div(s, &x[0], &x[1])).within(0.5, 2.0),
    ]
}
