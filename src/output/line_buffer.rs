//! A bounded buffer of lines, and the thread that writes them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of lines that wait for one stream. The kernel's pipe holds 64 KiB more.
pub const BUFFER_BYTES_MAX: usize = 1 << 20;
/// What a line takes beyond its bytes: its place in the queue and the allocator's rounding.
const LINE_BYTES: usize = 64;

thread_local! {
    /// Whether this thread writes a buffer's lines. What such a thread adds itself is never dropped: it is one line
    /// at a time, which says how many were dropped.
    static WRITES_LINES: Cell<bool> = const { Cell::new(false) };
}

/// Lines on their way to a stream. Adding one never waits and never fails; a line without room is dropped and
/// counted, and so is a line that the stream does not take.
pub(super) struct LineBuffer {
    queue: Mutex<Queue>,
    added: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

struct Queue {
    lines: VecDeque<Box<[u8]>>,
    /// Of the lines that are queued or being written.
    bytes: usize,
    /// Lines that were dropped since this was last said.
    dropped: u64,
    is_started: bool,
    /// Whether the thread has nothing to write.
    is_idle: bool,
}

impl LineBuffer {
    pub(super) const fn new() -> Self {
        Self {
            queue: Mutex::new(Queue {
                lines: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                is_started: false,
                is_idle: true,
            }),
            added: Condvar::new(),
            written: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Starts the thread, unless there is one. `say_dropped` is called on it with the number of lines that were
    /// dropped, once the stream takes lines again; it may add a line.
    ///
    /// # Errors
    /// The operating system's, if it has no thread for us.
    pub(super) fn start(
        &'static self,
        name: &str,
        stream: impl Write + Send + 'static,
        say_dropped: impl Fn(u64) + Send + 'static,
    ) -> io::Result<()> {
        let mut queue = self.queue();
        if !queue.is_started {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || self.write_lines(stream, say_dropped))?;
            queue.is_started = true;
        }
        Ok(())
    }

    /// Adds a line, with its end.
    pub(super) fn add(&self, line: &[u8]) {
        let bytes = line.len() + LINE_BYTES;
        let line = line.into();
        let mut queue = self.queue();
        if queue.bytes + bytes > BUFFER_BYTES_MAX && !WRITES_LINES.get() {
            self.count_dropped(&mut queue);
            return;
        }
        queue.bytes += bytes;
        queue.lines.push_back(line);
        drop(queue);
        self.added.notify_one();
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until everything is written, or so long.
    pub(super) fn flush(&self, at_most: Duration) {
        let is_pending = |queue: &mut Queue| !(queue.is_idle && queue.lines.is_empty());
        let waited = self
            .written
            .wait_timeout_while(self.queue(), at_most, is_pending);
        drop(waited);
    }

    fn write_lines(&self, mut stream: impl Write, say_dropped: impl Fn(u64)) {
        WRITES_LINES.set(true);
        loop {
            let mut is_taken = false;
            for line in self.next_lines() {
                is_taken = stream.write_all(&line).is_ok();
                let mut queue = self.queue();
                queue.bytes -= line.len() + LINE_BYTES;
                if !is_taken {
                    self.count_dropped(&mut queue);
                }
            }
            // Said to a stream that takes nothing, it would be dropped in turn, and so without end.
            if is_taken {
                let dropped = std::mem::take(&mut self.queue().dropped);
                if dropped > 0 {
                    say_dropped(dropped);
                }
            }
        }
    }

    fn next_lines(&self) -> VecDeque<Box<[u8]>> {
        let mut queue = self.queue();
        while queue.lines.is_empty() {
            queue.is_idle = true;
            self.written.notify_all();
            let waited = self.added.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_idle = false;
        std::mem::take(&mut queue.lines)
    }

    fn count_dropped(&self, queue: &mut Queue) {
        queue.dropped += 1;
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Nothing under the lock can panic and leave the queue half changed.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const FOREVER: Duration = Duration::from_mins(5);

    /// A stream that reports what it is asked to write, and waits for permission to write it.
    struct Reader {
        asked: Sender<String>,
        takes: Receiver<bool>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.asked.send(String::from_utf8_lossy(line).into_owned());
            match self.takes.recv() {
                Ok(true) => Ok(line.len()),
                _ => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Scene {
        buffer: &'static LineBuffer,
        said: Sender<String>,
        asked: Receiver<String>,
        takes: Sender<bool>,
    }

    impl Scene {
        fn start() -> Self {
            Self::saying(|buffer, dropped| buffer.add(format!("{dropped} dropped").as_bytes()))
        }

        fn saying(say: fn(&'static LineBuffer, u64)) -> Self {
            let buffer: &'static LineBuffer = Box::leak(Box::new(LineBuffer::new()));
            let (asked, takes) = (channel(), channel());
            let reader = Reader {
                asked: asked.0.clone(),
                takes: takes.1,
            };
            let say = move |dropped| say(buffer, dropped);
            buffer.start("lines", reader, say).unwrap();
            Self {
                buffer,
                said: asked.0,
                asked: asked.1,
                takes: takes.0,
            }
        }

        fn add(&self, line: &str) {
            self.buffer.add(line.as_bytes());
        }

        /// The next line that the stream is asked to write. The stream then takes it, or fails.
        fn is_asked(&self, takes: bool) -> String {
            let line = self.asked.recv_timeout(FOREVER).unwrap();
            self.takes.send(takes).unwrap();
            line
        }
    }

    #[test]
    fn lines_are_written_in_their_order() {
        let scene = Scene::start();
        for line in ["a", "b", "c"] {
            scene.add(line);
        }
        assert_eq!([(); 3].map(|()| scene.is_asked(true)), ["a", "b", "c"]);
        scene.buffer.flush(FOREVER);
        assert_eq!(scene.buffer.dropped(), 0);
    }

    #[test]
    fn lines_without_room_are_dropped_counted_and_said_once_after_those_before_them() {
        let scene = Scene::start();
        let half = "x".repeat(BUFFER_BYTES_MAX / 2 - LINE_BYTES);
        for line in [&half, &half, "dropped", "dropped too"] {
            scene.add(line);
        }
        assert_eq!(scene.buffer.dropped(), 2);
        assert_eq!(scene.is_asked(true), half);
        assert_eq!(scene.is_asked(true), half);
        assert_eq!(scene.is_asked(true), "2 dropped");
        scene.add("after");
        assert_eq!(scene.is_asked(true), "after");
        scene.buffer.flush(FOREVER);
        assert_eq!(scene.buffer.dropped(), 2);
    }

    #[test]
    fn lines_that_the_stream_refuses_are_counted_and_said_when_it_takes_lines_again() {
        let scene = Scene::start();
        scene.add("lost");
        assert_eq!(scene.is_asked(false), "lost");
        scene.buffer.flush(FOREVER);
        assert_eq!(scene.buffer.dropped(), 1);
        scene.add("lost too");
        assert_eq!(scene.is_asked(false), "lost too");
        scene.add("written");
        assert_eq!(scene.is_asked(true), "written");
        assert_eq!(scene.is_asked(true), "2 dropped");
    }

    #[test]
    fn a_line_that_says_what_was_dropped_needs_no_room() {
        fn whole() -> String {
            "x".repeat(BUFFER_BYTES_MAX - LINE_BYTES)
        }
        let scene = Scene::saying(|buffer, dropped| {
            let filling = std::thread::spawn(|| buffer.add(whole().as_bytes()));
            filling.join().unwrap();
            buffer.add(format!("{dropped} dropped").as_bytes());
        });
        scene.add(&whole());
        scene.add("dropped");
        assert_eq!(scene.is_asked(true), whole());
        assert_eq!(scene.is_asked(true), whole());
        assert_eq!(scene.is_asked(true), "1 dropped");
    }

    #[test]
    fn a_flush_waits_for_the_last_line_and_for_what_is_said_of_dropped_lines() {
        let scene = Scene::start();
        let (said, buffer) = (scene.said.clone(), scene.buffer);
        scene.add(&"x".repeat(BUFFER_BYTES_MAX - LINE_BYTES));
        scene.add("dropped");
        let flushing = std::thread::spawn(move || {
            buffer.flush(FOREVER);
            said.send("flushed".to_owned())
        });
        scene.is_asked(true);
        assert_eq!(scene.is_asked(true), "1 dropped");
        assert_eq!(scene.asked.recv_timeout(FOREVER).unwrap(), "flushed");
        flushing.join().unwrap().unwrap();
    }

    #[test]
    fn a_flush_does_not_wait_for_a_stream_that_takes_nothing() {
        let scene = Scene::start();
        scene.add("never written");
        scene.asked.recv_timeout(FOREVER).unwrap();
        scene.buffer.flush(Duration::from_millis(1));
    }
}
