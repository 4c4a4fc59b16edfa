//! Whether a socket may have bytes to read.
//!
//! A task that is woken for another reason does not know that its socket is silent, and asking the socket
//! costs a lock and two cold cache lines. So the socket's waker is not the task's: it sets a flag here, and
//! then wakes the task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake};

use futures_util::task::AtomicWaker;

/// The waker with which a socket is read.
#[derive(Debug)]
pub(crate) struct Readiness {
    is_ready: AtomicBool,
    /// Whether the peer has ended its side. Padding holds it here; in the connection's task it would make
    /// the task longer.
    has_ended: AtomicBool,
    task: AtomicWaker,
}

impl Default for Readiness {
    /// Ready: the socket has not been read yet.
    fn default() -> Self {
        Self {
            is_ready: AtomicBool::new(true),
            has_ended: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }
}

impl Readiness {
    /// Whether the socket has to be read, with this as the waker, until nothing is there. If not, the task
    /// is woken when that changes.
    #[inline]
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> bool {
        self.task.register(context.waker());
        // Reset before the read: bytes that arrive during the read set it again.
        self.is_ready.load(Ordering::Acquire) && self.is_ready.swap(false, Ordering::AcqRel)
    }

    /// The last read has returned bytes: there may be more.
    #[inline]
    pub(crate) fn set_ready(&self) {
        self.is_ready.store(true, Ordering::Release);
    }

    /// The peer has ended its side.
    #[inline]
    pub(crate) fn set_ended(&self) {
        self.has_ended.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}

impl Wake for Readiness {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_ready.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_socket_is_read_at_first_after_a_wake_and_while_reads_return_bytes() {
        let (readiness, wakes) = (Arc::new(Readiness::default()), Arc::new(Wakes::default()));
        let task = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&task);
        assert!(readiness.poll(&mut context), "nothing has been read yet");
        assert!(!readiness.poll(&mut context), "nothing has arrived");

        let by_reference = Waker::from(Arc::clone(&readiness));
        by_reference.wake_by_ref();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(readiness.poll(&mut context));
        assert!(!readiness.poll(&mut context));

        by_reference.wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
        assert!(readiness.poll(&mut context));

        readiness.set_ready();
        assert!(readiness.poll(&mut context));
        assert!(!readiness.poll(&mut context));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn an_end_is_remembered() {
        let readiness = Readiness::default();
        assert!(!readiness.has_ended());
        readiness.set_ended();
        assert!(readiness.has_ended());
    }
}
