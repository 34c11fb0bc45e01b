//! What the libraries say through `tracing`, as plain lines on standard error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::Global;
use crate::failure::in_flags;
use crate::progress;

/// Prints warnings and errors; with `-v` also information, with `-vv` and `-vvv` more; with `-q`
/// only errors.
pub fn install(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => Level::ERROR,
        (false, 0) => Level::WARN,
        (false, 1) => Level::INFO,
        (false, 2) => Level::DEBUG,
        (false, _) => Level::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| Stderr)
        .with_ansi(false)
        .event_format(Plain)
        .finish();
    // Fails only if one is installed already, and this is the only place.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Texts that were cut and all texts, for each reason: a long input is worked on in pieces, and is
/// to hear of it once.
static CUT: Mutex<BTreeMap<String, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// What was said, not to be said again.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says what was only counted so far.
pub fn finish() {
    let counted = std::mem::take(&mut *CUT.lock().unwrap_or_else(|held| held.into_inner()));
    for (reason, (cut, texts)) in counted {
        let of = match texts {
            1 => "the text was cut".into(),
            _ => format!("{cut} of {texts} texts were cut"),
        };
        progress::message(&format!("warning: {of}: {reason}\n"));
    }
}

/// `warning: what happened`: no time, no module.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let (Some(cut), Some(texts)) = (fields.cut, fields.texts) {
            let mut counted = CUT.lock().unwrap_or_else(|held| held.into_inner());
            let sums = counted.entry(in_flags(&fields.reason)).or_default();
            *sums = (sums.0 + cut, sums.1 + texts);
            return Ok(());
        }
        let kind = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let text = format!("{kind}: {}", fields.message);
        // What holds for a whole input is said for each of its pieces.
        let mut said = SAID.lock().unwrap_or_else(|held| held.into_inner());
        match said.insert(text.clone()) {
            true => writeln!(writer, "{text}"),
            false => Ok(()),
        }
    }
}

/// An event's fields.
#[derive(Default)]
struct Fields {
    message: String,
    cut: Option<u64>,
    texts: Option<u64>,
    reason: String,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "cut" => self.cut = Some(value),
            "texts" => self.texts = Some(value),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "reason" => value.clone_into(&mut self.reason),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.message, " {name}={value:?}"),
        };
    }
}

/// Standard error, above a progress bar. It never fails: a log that cannot be written is no reason
/// to stop, nor to complain on the same channel.
struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            progress::message(&String::from_utf8_lossy(bytes));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
