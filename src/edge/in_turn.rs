//! Futures that are polled one at a time, in the order in which they were woken.
//!
//! Spawned by themselves, a hundred of them that are ready together stand in the runtime's queue before
//! whatever becomes ready next. Here they are one task, which gives way after every step of one of them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use slab::Slab;

/// The futures, and which of them have been woken. It forgets those that have ended.
pub(super) struct InTurn<F> {
    waiting: Slab<Waiting<F>>,
    woken: Arc<Woken>,
}

struct Waiting<F> {
    future: Pin<Box<F>>,
    call: Arc<Call>,
}

/// Who is to be polled next. No longer than there are wakers, since each stands in it once.
struct Woken {
    places: Mutex<VecDeque<usize>>,
    task: AtomicWaker,
}

impl Woken {
    fn places(&self) -> MutexGuard<'_, VecDeque<usize>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one of them. One that outlives its future calls at most once more, for whoever has the
/// place then.
struct Call {
    place: usize,
    called: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.called.swap(true, AcqRel) {
            self.woken.places().push_back(self.place);
            self.woken.task.wake();
        }
    }
}

impl<F: Future<Output = ()>> InTurn<F> {
    pub(super) fn new() -> Self {
        Self {
            waiting: Slab::new(),
            woken: Arc::new(Woken {
                places: Mutex::default(),
                task: AtomicWaker::new(),
            }),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// One more, behind those that have been woken.
    pub(super) fn push(&mut self, future: F) {
        let entry = self.waiting.vacant_entry();
        let call = Arc::new(Call {
            place: entry.key(),
            called: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        call.wake_by_ref();
        let future = Box::pin(future);
        entry.insert(Waiting { future, call });
    }

    /// Wakes all of them.
    pub(super) fn wake_all(&self) {
        for (_, waiting) in &self.waiting {
            waiting.call.wake_by_ref();
        }
    }

    /// Polls those that have waited longest since they were woken, so many steps at most; says how many
    /// there were, and is pending while there is none.
    pub(super) fn poll_steps(&mut self, context: &mut Context<'_>, most: u32) -> Poll<u32> {
        self.woken.task.register(context.waker());
        let taken = (0..most).take_while(|_| self.step()).count();
        match u32::try_from(taken) {
            Ok(0) => Poll::Pending,
            taken => Poll::Ready(taken.unwrap_or(most)),
        }
    }

    /// Polls the one that has waited longest; `false` if none was woken.
    fn step(&mut self) -> bool {
        let Some(place) = self.woken.places().pop_front() else {
            return false;
        };
        if let Some(waiting) = self.waiting.get_mut(place) {
            // Before it is polled: what wakes it from here on is for the next time.
            waiting.call.called.store(false, Release);
            let waker = Waker::from(Arc::clone(&waiting.call));
            let polled = catch_unwind(AssertUnwindSafe(|| {
                let mut context = Context::from_waker(&waker);
                waiting.future.as_mut().poll(&mut context)
            }));
            // One that panics ends by itself, as a task of its own would.
            if !matches!(polled, Ok(Poll::Pending)) {
                self.waiting.remove(place);
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

    /// Takes one step after another, as long as there are any; says how many.
    fn steps(futures: &mut InTurn<impl Future<Output = ()>>) -> usize {
        std::iter::from_fn(|| futures.step().then_some(())).count()
    }

    #[test]
    fn one_step_of_one_of_them_at_a_time_in_the_order_of_waking() {
        let polled = Rc::new(RefCell::new(Vec::new()));
        let mut futures = InTurn::new();
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
        assert_eq!(futures.poll_steps(&mut context, 2), Poll::Ready(2));
        assert_eq!(*polled.borrow(), [0, 1]);
        assert_eq!(futures.poll_steps(&mut context, 9), Poll::Ready(4));
        assert_eq!(futures.poll_steps(&mut context, 9), Poll::Pending);
        assert_eq!(*polled.borrow(), [0, 1, 2, 0, 1, 2]);
        assert!(futures.is_empty());
    }

    #[test]
    fn what_sleeps_costs_nothing_until_it_is_woken() {
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let mut futures = InTurn::new();
        let keep = Rc::clone(&kept);
        futures.push(poll_fn(move |context| {
            let woken = keep.borrow_mut().replace(context.waker().clone());
            if woken.is_some() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        assert_eq!((steps(&mut futures), steps(&mut futures)), (1, 0));
        let waker = kept.borrow().clone().unwrap();
        waker.wake_by_ref();
        assert_eq!(steps(&mut futures), 1);
        assert!(futures.is_empty());
        // Its place is empty, or someone else's.
        waker.wake();
        assert_eq!(steps(&mut futures), 1);
    }

    #[test]
    fn a_panic_ends_one_and_not_the_others() {
        let ended = Rc::new(RefCell::new(0));
        let mut futures = InTurn::new();
        for name in 0..3 {
            let ended = Rc::clone(&ended);
            futures.push(poll_fn(move |_| {
                assert_ne!(name, 1, "on purpose");
                *ended.borrow_mut() += 1;
                Poll::Ready(())
            }));
        }
        assert_eq!(steps(&mut futures), 3);
        assert_eq!(*ended.borrow(), 2);
        assert!(futures.is_empty());
    }

    #[test]
    fn all_can_be_woken() {
        let mut futures = InTurn::new();
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
        assert_eq!((steps(&mut futures), steps(&mut futures)), (3, 0));
        futures.wake_all();
        assert_eq!(steps(&mut futures), 3);
        assert!(futures.is_empty());
    }
}
