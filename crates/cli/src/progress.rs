//! How far long work has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};

use crate::args::Global;

/// Work that is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// The bar on the screen, for messages to step around.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Counts what is finished, and shows it once it takes long.
pub struct Progress<'a> {
    what: &'static str,
    total: Box<dyn Fn() -> Option<usize> + 'a>,
    started: Instant,
    next: Duration,
    shown: Shown,
}

enum Shown {
    Never,
    /// Lines, with the total once it is known.
    Lines(Option<Option<usize>>),
    Bar(Option<ProgressBar>),
}

impl<'a> Progress<'a> {
    /// Progress in `what` (such as "texts"), where `on_screen` says that results appear on a
    /// terminal; `total` is asked at most once, and only by work that takes long.
    pub fn new(
        what: &'static str,
        global: &Global,
        on_screen: bool,
        total: impl Fn() -> Option<usize> + 'a,
    ) -> Self {
        let shown = match (global.quiet || on_screen, io::stderr().is_terminal()) {
            // Results on the screen are progress enough.
            (true, _) => Shown::Never,
            (false, true) => Shown::Bar(None),
            (false, false) => Shown::Lines(None),
        };
        Self {
            what,
            total: Box::new(total),
            started: Instant::now(),
            next: PAUSE,
            shown,
        }
    }

    /// So much is finished.
    pub fn at(&mut self, done: usize) {
        let elapsed = self.started.elapsed();
        match &mut self.shown {
            Shown::Never => {}
            Shown::Bar(Some(bar)) => show(bar, self.what, done, elapsed),
            Shown::Bar(none) => {
                if elapsed >= PATIENCE {
                    let bar = bar((self.total)());
                    show(&bar, self.what, done, elapsed);
                    *BAR.lock().unwrap_or_else(|held| held.into_inner()) = Some(bar.clone());
                    *none = Some(bar);
                }
            }
            Shown::Lines(total) => {
                if elapsed >= self.next {
                    let total = *total.get_or_insert_with(&self.total);
                    self.next = elapsed + PAUSE;
                    let of = total.map_or(String::new(), |total| {
                        format!(" of {}", HumanCount(total as u64))
                    });
                    let (what, rate) = (self.what, HumanCount(rate(done, elapsed) as u64));
                    let done = HumanCount(done as u64);
                    message(&format!("{done}{of} {what}, {rate} a second\n"));
                }
            }
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Shown::Bar(Some(bar)) = &self.shown {
            bar.finish_and_clear();
            *BAR.lock().unwrap_or_else(|held| held.into_inner()) = None;
        }
    }
}

fn bar(total: Option<usize>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total as u64),
            "{wide_bar} {human_pos} of {human_len} {msg}",
        ),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} {msg}"),
    };
    // The templates above are well formed; a bar without style still counts.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Moves a bar on. The rate is the mean since the start: the bar's own begins when it appears.
fn show(bar: &ProgressBar, what: &str, done: usize, elapsed: Duration) {
    bar.set_position(done as u64);
    let rate = rate(done, elapsed);
    let left = bar.length().map(|total| {
        let seconds = total.saturating_sub(done as u64) as f64 / rate.max(1e-3);
        format!(
            ", {} left",
            HumanDuration(Duration::from_secs(seconds as u64))
        )
    });
    let rate = HumanCount(rate as u64);
    bar.set_message(format!(
        "{what}, {rate} a second{}",
        left.unwrap_or_default()
    ));
}

fn rate(done: usize, elapsed: Duration) -> f64 {
    done as f64 / elapsed.as_secs_f64().max(1e-3)
}

/// Writes text on standard error, above the bar if there is one. A standard error that is full or
/// closed is no reason to stop.
pub fn message(text: &str) {
    let write = || drop(io::stderr().write_all(text.as_bytes()));
    match &*BAR.lock().unwrap_or_else(|held| held.into_inner()) {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}
