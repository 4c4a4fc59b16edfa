//! Looks into the database: who leads there, and how far it is. A node heeds no run that its own database does not name.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::protocol::Cursor;
use crate::store::Log;

/// Between two looks, however many messages of another run come.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks while nothing asks for one.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// What a look has found.
#[derive(Debug)]
pub(super) struct Found {
    /// When the look began: the snapshot was taken later.
    pub(super) began: Instant,
    /// The database's present.
    pub(super) present: Cursor,
    /// The number of the leader's run, if there is a leader.
    pub(super) run: Option<u64>,
}

/// The looks of one node.
pub(super) struct LeaderWatch {
    log: Log,
    /// A look that has begun. The mutex is never locked: it lets the task move between threads.
    look: Option<Mutex<BoxFuture<'static, Result<Found, sqlx::Error>>>>,
    last: Option<Instant>,
    is_asked: bool,
}

impl fmt::Debug for LeaderWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderWatch").finish_non_exhaustive()
    }
}

impl LeaderWatch {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            look: None,
            last: None,
            is_asked: false,
        }
    }

    /// A message of another run came: looks soon.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// What the next look finds. Cancel-safe: a look that has begun goes on with the next call.
    pub(super) async fn next(&mut self) -> Result<Found, sqlx::Error> {
        if self.look.is_none() {
            let interval = if self.is_asked {
                LOOK_INTERVAL
            } else {
                IDLE_INTERVAL
            };
            if let Some(last) = self.last {
                tokio::time::sleep_until((last + interval).into()).await;
            }
            let began = Instant::now();
            (self.last, self.is_asked) = (Some(began), false);
            self.look = Some(Mutex::new(look(self.log.clone(), began).boxed()));
        }
        let Some(look) = &mut self.look else {
            return std::future::pending().await;
        };
        let found = look.get_mut().unwrap_or_else(PoisonError::into_inner).await;
        self.look = None;
        found
    }
}

async fn look(log: Log, began: Instant) -> Result<Found, sqlx::Error> {
    let run = log.leader().await?.map(|leader| leader.run);
    let present = log.present().await?;
    Ok(Found {
        began,
        present,
        run,
    })
}
