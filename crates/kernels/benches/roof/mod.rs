//! Rates beside the machine's multiply-add peak, measured in turn in one run.
//!
//! Not on criterion: a share of a peak needs both numbers from the same moments of a machine whose
//! clock wanders, so rounds alternate and medians are told.

use std::time::Instant;

use bertha_kernels::{Exec, default_threads, peak_flops};

const ROUNDS: usize = 7;

/// What rounds of a kernel and of the peak gave.
struct Found {
    /// Medians over rounds of the kernel's rate (itself that of a round's median call), the peak's, and their
    /// ratio within a round.
    rate: f64,
    peak: f64,
    share: f64,
    /// The fastest call's rate by the fastest round's peak: what is left when others use the machine.
    best_share: f64,
}

/// Calls `table` with a budget of one thread and then of all, under a heading and with the columns
/// that [`print_row`] fills.
pub fn for_each_budget(columns: &[&str], table: impl Fn(&Exec)) {
    let mut budgets = vec![1, default_threads()];
    budgets.dedup();
    for threads in budgets {
        let exec = match Exec::new(Some(threads)) {
            Ok(exec) => exec,
            Err(error) => {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        };
        println!("\n{}, {threads} thread(s)\n", exec.isa());
        println!(
            "| {} | GFLOP/s | peak GFLOP/s | % of peak | best % of best peak |",
            columns.join(" | ")
        );
        println!(
            "|{} ---: | ---: | ---: | ---: |",
            " --- |".repeat(columns.len())
        );
        table(&exec);
    }
}

/// Measures a kernel of `flops` operations and prints its line, if the line has all words of the command line.
#[allow(dead_code)]
pub fn print_row(exec: &Exec, cells: &str, flops: f64, kernel: impl FnMut()) {
    print_row_of(exec, cells, flops, peak_flops, kernel);
}

/// [`print_row`] beside another peak than that of f32 multiply-adds.
pub fn print_row_of(
    exec: &Exec,
    cells: &str,
    flops: f64,
    peak: impl Fn(&Exec) -> f64,
    kernel: impl FnMut(),
) {
    let words = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let asked = words.into_iter().all(|word| cells.contains(&word));
    if !asked {
        return;
    }
    let found = measure(exec, flops, peak, kernel);
    println!(
        "| {cells} | {:.1} | {:.1} | {:.1} | {:.1} |",
        found.rate / 1e9,
        found.peak / 1e9,
        100.0 * found.share,
        100.0 * found.best_share,
    );
}

fn measure(
    exec: &Exec,
    flops: f64,
    peak: impl Fn(&Exec) -> f64,
    mut kernel: impl FnMut(),
) -> Found {
    let calls = ((1e10 / flops) as usize).clamp(3, 2_000);
    let mut samples = Vec::new();
    let mut fastest = f64::INFINITY;
    for _ in 0..ROUNDS {
        let peak = peak(exec);
        kernel();
        let call = |_| {
            let start = Instant::now();
            kernel();
            start.elapsed().as_secs_f64()
        };
        let mut seconds: Vec<f64> = (0..calls).map(call).collect();
        seconds.sort_by(f64::total_cmp);
        fastest = fastest.min(seconds[0]);
        let rate = flops / seconds[calls / 2];
        samples.push((rate, peak, rate / peak));
    }
    let sorted = |of: fn(&(f64, f64, f64)) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let peaks = sorted(|s| s.1);
    Found {
        rate: sorted(|s| s.0)[ROUNDS / 2],
        peak: peaks[ROUNDS / 2],
        share: sorted(|s| s.2)[ROUNDS / 2],
        best_share: flops / fastest / peaks[ROUNDS - 1],
    }
}

/// Values from −0.5 to 0.5 that follow no short pattern.
pub fn ramp(len: usize, step: usize) -> Vec<f32> {
    let value = |i: usize| ((i * step) % 1001) as f32 / 1001.0 - 0.5;
    (0..len).map(value).collect()
}
