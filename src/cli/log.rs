//! The log on stderr, written by a thread of its own.
//!
//! A log collector that stalls, or is gone, must not stop the watch: lines wait in a queue of
//! bounded length, and what does not fit is dropped and counted in the log itself.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// So many lines wait for a reader: some minutes of a bad night.
const MAX_WAITING_LINES: usize = 4096;

/// At the end the reader has so long to take what still waits.
const FLUSH_AT_MOST: Duration = Duration::from_millis(500);

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
}

/// Ends the log: what waits is written, if somebody reads it.
pub(super) struct Log {
    lines: Lines,
    ended: Receiver<()>,
}

impl Log {
    /// Begins the log of this program; `RUST_LOG` says how much of it.
    pub(super) fn begin(format: LogFormat) -> io::Result<Self> {
        let (sender, waiting) = sync_channel(MAX_WAITING_LINES);
        let (end, ended) = sync_channel(1);
        let lines = Lines { sender, dropped: Arc::default() };
        let dropped = Arc::clone(&lines.dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            write_all(&waiting, &dropped, io::stderr());
            // Nobody may be left to hear of it.
            let _nobody_hears = end.send(());
        })?;
        let (filter, wrong) = filter(std::env::var_os("RUST_LOG").as_deref());
        let layer = tracing_subscriber::fmt::layer()
            // Of its own mistakes it would tell stderr, and panic when nobody reads that.
            .log_internal_errors(false)
            // The module: a word for us, and in JSON one that is taken by the fields.
            .with_target(false)
            .with_writer(lines.clone());
        let log = tracing_subscriber::registry().with(filter);
        match format {
            LogFormat::Text => log.with(layer).init(),
            LogFormat::Json => log.with(layer.json()).init(),
        }
        if let Some(wrong) = wrong {
            tracing::warn!(wrong, "RUST_LOG is not understood; the log says what it usually does");
        }
        Ok(Self { lines, ended })
    }

    /// Waits a moment for what is still to be written.
    pub(super) fn end(self) {
        if self.lines.sender.try_send(Message::End).is_ok() {
            let _too_slow = self.ended.recv_timeout(FLUSH_AT_MOST);
        }
    }
}

/// What `RUST_LOG` asks for: a level, or some of `module=level`, with commas between them. What is
/// wrong with it, if something is.
fn filter(asked: Option<&OsStr>) -> (Targets, Option<String>) {
    let usual = Targets::new().with_default(LevelFilter::INFO);
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return (usual, None) };
    let Some(asked) = asked.to_str() else { return (usual, Some("no UTF-8 text".to_owned())) };
    match asked.parse() {
        Ok(filter) => (filter, None),
        Err(wrong) => (usual, Some(format!("{asked:?}: {wrong}"))),
    }
}

enum Message {
    Line(Vec<u8>),
    End,
}

/// Where the subscriber writes: each write is a whole line.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_all(waiting: &Receiver<Message>, dropped: &AtomicU64, mut out: impl Write) {
    while let Ok(Message::Line(line)) = waiting.recv() {
        let lost = dropped.swap(0, Ordering::Relaxed);
        let mut written = Ok(());
        if lost > 0 {
            written = writeln!(out, "{lost} lines were dropped here: nobody read them in time");
        }
        // A reader that is gone does not come back, and takes nothing from the watch.
        drop(written.and_then(|()| out.write_all(&line)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_much_and_what_is_not_understood() {
        use tracing::Level;
        let lets = |asked: &str, module: &str, level| {
            let (filter, wrong) = filter(Some(OsStr::new(asked)));
            assert_eq!(wrong, None, "{asked}");
            filter.would_enable(module, &level)
        };
        assert!(lets("", "plimsoll::run", Level::INFO) && !lets("", "plimsoll", Level::DEBUG));
        assert!(lets("debug", "hyper", Level::DEBUG) && !lets("warn", "plimsoll", Level::INFO));
        let own = "info,plimsoll::collect=trace";
        assert!(lets(own, "plimsoll::collect::log", Level::TRACE));
        assert!(!lets(own, "plimsoll::run", Level::DEBUG));
        assert!(!lets("off", "plimsoll", Level::ERROR));
        let (kept, wrong) = filter(Some(OsStr::new("plimsoll=loud")));
        assert!(kept.would_enable("plimsoll", &Level::INFO));
        let wrong = wrong.unwrap();
        assert!(wrong.starts_with("\"plimsoll=loud\": ") && wrong.contains("info"), "{wrong}");
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (sender, waiting) = sync_channel(2);
        let mut lines = Lines { sender: sender.clone(), dropped: Arc::default() };
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            lines.write_all(line.as_bytes()).unwrap();
        }
        drop(sender);
        let dropped = Arc::clone(&lines.dropped);
        drop(lines);
        let mut out = Vec::new();
        write_all(&waiting, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "2 lines were dropped here: nobody read them in time\none\ntwo\n");
    }
}
