//! Whether a socket has something to read.
//!
//! A task that is woken for an event does not know that its socket is silent, and asking the socket costs a
//! lock and two cold lines of memory. So the socket does not wake the task itself: it says here that
//! something came, and this wakes the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake};

use futures_util::task::AtomicWaker;

/// What wakes the task that reads a socket.
#[derive(Debug)]
pub(super) struct Arrivals {
    any: AtomicBool,
    /// Whether the peer has ended its side. Here it takes no memory, in the connection's task it did.
    over: AtomicBool,
    task: AtomicWaker,
}

impl Default for Arrivals {
    /// Nobody has looked yet.
    fn default() -> Self {
        Self {
            any: AtomicBool::new(true),
            over: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }
}

impl Arrivals {
    /// Whether the socket has to be read; if not, the task is woken when that changes. Who is told so reads
    /// with this as the waker until nothing is there.
    pub(super) fn poll_any(&self, context: &mut Context<'_>) -> bool {
        self.task.register(context.waker());
        // Before the read: what comes during it is not overlooked.
        self.any.load(Ordering::Acquire) && self.any.swap(false, Ordering::AcqRel)
    }

    /// The read was answered, and the next one may be too.
    pub(super) fn expect_more(&self) {
        self.any.store(true, Ordering::Release);
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Whether that is so.
    pub(super) fn are_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Wake for Arrivals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.any.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_socket_is_read_first_and_then_when_something_came() {
        let (arrivals, woken) = (Arc::new(Arrivals::default()), Arc::new(Woken::default()));
        let task = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&task);
        let socket = Waker::from(Arc::clone(&arrivals));
        assert!(arrivals.poll_any(&mut context));
        assert!(!arrivals.poll_any(&mut context), "it was silent");
        socket.wake_by_ref();
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(arrivals.poll_any(&mut context));
        arrivals.expect_more();
        assert!(arrivals.poll_any(&mut context));
        assert!(!arrivals.poll_any(&mut context));
    }
}
