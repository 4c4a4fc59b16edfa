//! Futures that are polled one at a time, in the order in which they were woken.
//!
//! As tasks of their own, a hundred futures that are ready together would stand in the runtime's queue before
//! whatever becomes ready next. Here they share one task, which returns to the runtime after a few polls.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use slab::Slab;

/// The futures, and the queue of those that have been woken. A future is dropped when it ends. It must not
/// panic: a panic would end the task, and so all of them.
pub(super) struct RoundRobin<F> {
    slots: Slab<Slot<F>>,
    queue: Arc<Queue>,
}

struct Slot<F> {
    future: Pin<Box<F>>,
    waker: Arc<SlotWaker>,
}

/// The slots to poll next. No longer than there are wakers, since each slot stands in it at most once.
struct Queue {
    slots: Mutex<VecDeque<usize>>,
    task: AtomicWaker,
}

impl Queue {
    fn slots(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one future. A waker that outlives its future causes at most one poll of the slot's next
/// future.
struct SlotWaker {
    slot: usize,
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, AcqRel) {
            self.queue.slots().push_back(self.slot);
            self.queue.task.wake();
        }
    }
}

impl<F: Future<Output = ()>> RoundRobin<F> {
    pub(super) fn new() -> Self {
        Self {
            slots: Slab::new(),
            queue: Arc::new(Queue {
                slots: Mutex::default(),
                task: AtomicWaker::new(),
            }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds a future; its first poll comes behind those of the futures that have been woken before.
    pub(super) fn push(&mut self, future: F) {
        let entry = self.slots.vacant_entry();
        let waker = Arc::new(SlotWaker {
            slot: entry.key(),
            queued: AtomicBool::new(false),
            queue: Arc::clone(&self.queue),
        });
        waker.wake_by_ref();
        let future = Box::pin(future);
        entry.insert(Slot { future, waker });
    }

    /// Adds these.
    pub(super) fn extend(&mut self, futures: impl IntoIterator<Item = F>) {
        futures.into_iter().for_each(|future| self.push(future));
    }

    /// Wakes every future.
    pub(super) fn wake_all(&self) {
        for (_, slot) in &self.slots {
            slot.waker.wake_by_ref();
        }
    }

    /// Polls the futures that were woken first, at most `polls_max` of them. Returns the number of polls;
    /// pending while no future is woken.
    pub(super) fn poll_woken(&mut self, context: &mut Context<'_>, polls_max: u32) -> Poll<u32> {
        self.queue.task.register(context.waker());
        let polls = (0..polls_max).take_while(|_| self.poll_next()).count();
        match u32::try_from(polls) {
            Ok(0) => Poll::Pending,
            polls => Poll::Ready(polls.unwrap_or(polls_max)),
        }
    }

    /// Polls the future that was woken first; `false` if none was woken.
    fn poll_next(&mut self) -> bool {
        let Some(index) = self.queue.slots().pop_front() else {
            return false;
        };
        if let Some(slot) = self.slots.get_mut(index) {
            // Before the poll: a wake-up during the poll asks for another one.
            slot.waker.queued.store(false, Release);
            let waker = Waker::from(Arc::clone(&slot.waker));
            let mut context = Context::from_waker(&waker);
            if slot.future.as_mut().poll(&mut context).is_ready() {
                self.slots.remove(index);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use super::*;

    /// Polls until no future is woken; returns the number of polls.
    fn polls(futures: &mut RoundRobin<impl Future<Output = ()>>) -> usize {
        std::iter::from_fn(|| futures.poll_next().then_some(())).count()
    }

    #[test]
    fn futures_are_polled_one_at_a_time_in_the_order_of_waking() {
        let polled = Rc::new(RefCell::new(Vec::new()));
        let mut futures = RoundRobin::new();
        for name in 0..3 {
            let polled = Rc::clone(&polled);
            let mut left = 2;
            futures.push(poll_fn(move |context| {
                polled.borrow_mut().push(name);
                left -= 1;
                if left == 0 {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                context.waker().wake_by_ref();
                Poll::Pending
            }));
        }
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(futures.poll_woken(&mut context, 2), Poll::Ready(2));
        assert_eq!(*polled.borrow(), [0, 1]);
        assert_eq!(futures.poll_woken(&mut context, 9), Poll::Ready(4));
        assert_eq!(futures.poll_woken(&mut context, 9), Poll::Pending);
        assert_eq!(*polled.borrow(), [0, 1, 2, 0, 1, 2]);
        assert!(futures.is_empty());
    }

    #[test]
    fn a_future_is_not_polled_before_it_is_woken() {
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let mut futures = RoundRobin::new();
        let keep = Rc::clone(&kept);
        futures.push(poll_fn(move |context| {
            let woken = keep.borrow_mut().replace(context.waker().clone());
            if woken.is_some() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        assert_eq!((polls(&mut futures), polls(&mut futures)), (1, 0));
        let waker = kept.borrow().clone().unwrap();
        waker.wake_by_ref();
        assert_eq!(polls(&mut futures), 1);
        assert!(futures.is_empty());
        // Its slot is empty, or has another future.
        waker.wake();
        assert_eq!(polls(&mut futures), 1);
    }

    #[test]
    fn all_futures_can_be_woken() {
        let mut futures = RoundRobin::new();
        for _ in 0..3 {
            let mut polled = 0;
            futures.push(poll_fn(move |_| {
                polled += 1;
                if polled == 2 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }));
        }
        assert_eq!((polls(&mut futures), polls(&mut futures)), (3, 0));
        futures.wake_all();
        assert_eq!(polls(&mut futures), 3);
        assert!(futures.is_empty());
    }
}
