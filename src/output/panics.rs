//! The message of a panic.

use std::backtrace::{Backtrace, BacktraceStatus};

/// Logs each panic from here on. The standard library would write it to standard error, and wait for the reader.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let backtrace = Backtrace::capture();
        let is_wanted = backtrace.status() == BacktraceStatus::Captured;
        tracing::error!(
            event = "panicked",
            thread = thread.name(),
            at = panic.location().map(tracing::field::display),
            message = panic.payload_as_str().unwrap_or("no message"),
            backtrace = is_wanted.then(|| tracing::field::display(&backtrace)),
        );
    }));
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps the log's text.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let kept = Kept::default();
        let writer = kept.clone();
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let before = take_hook();
        log_panics();
        let panicked = tracing::subscriber::with_default(log, || {
            catch_unwind(|| panic!("{} is broken", "this"))
        });
        set_hook(before);
        assert!(panicked.is_err());
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        for part in ["ERROR", "panicked", "this is broken", "panics.rs:"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }
}
