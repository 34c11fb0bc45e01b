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
        self.show(done, |elapsed, total| {
            let rate = done as f64 / elapsed.as_secs_f64().max(1e-3);
            let left = total.map(|total| {
                let seconds = total.saturating_sub(done) as f64 / rate.max(1e-3);
                format!(
                    ", {} left",
                    HumanDuration(Duration::from_secs(seconds as u64))
                )
            });
            let rate = HumanCount(rate as u64);
            format!("{rate} a second{}", left.unwrap_or_default())
        });
    }

    /// So much is finished, and this is worth saying of it.
    pub fn at_with(&mut self, done: usize, words: impl FnOnce() -> String) {
        self.show(done, |_, _| words());
    }

    /// `words` gets the time since the start and the total, where that is known.
    fn show(&mut self, done: usize, words: impl FnOnce(Duration, Option<usize>) -> String) {
        let elapsed = self.started.elapsed();
        let what = self.what;
        match &mut self.shown {
            Shown::Never => {}
            Shown::Bar(Some(bar)) => {
                let total = bar.length().map(|total| total as usize);
                show(bar, done, &format!("{what}, {}", words(elapsed, total)));
            }
            Shown::Bar(none) => {
                if elapsed >= PATIENCE {
                    let total = (self.total)();
                    let bar = bar(total);
                    show(&bar, done, &format!("{what}, {}", words(elapsed, total)));
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
                    let words = words(elapsed, total);
                    let done = HumanCount(done as u64);
                    message(&format!("{done}{of} {what}, {words}\n"));
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

/// Moves a bar on. Rates are means since the start: the bar's own begin when it appears.
fn show(bar: &ProgressBar, done: usize, words: &str) {
    bar.set_position(done as u64);
    bar.set_message(words.to_owned());
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
