//! Where the router passes on what it routes: the bus, when this node leads.

use std::fmt;

use crate::protocol::{Cursor, Notification};

/// Takes what the router routes, in its order. Never waits.
pub trait Relay: fmt::Debug + Send + Sync {
    /// An event or a revocation was routed, for the first time.
    fn event(&mut self, notification: &Notification<'_>);
    /// A barrier was completed: it sees everything that was routed before the last one was completed.
    fn barrier(&mut self, barrier: &Cursor);
    /// What was routed and what comes cannot be joined: all goes on at this cursor.
    fn restart(&mut self, cursor: Option<&Cursor>);
    /// A row of the log for all users was read.
    fn row_for_all(&mut self);
    /// The sources of the log may have changed.
    fn sources(&mut self);
    /// Nothing more is ready.
    fn flush(&mut self);
}
