//! Looks into the database: who leads there, and how far it is. A node heeds no run that its own database does not name.

use std::fmt;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use tokio::time::timeout;

use crate::protocol::{Cursor, DatabaseFault};
use crate::store::{self, Log};

/// Between two looks, however many messages of another run come.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks while nothing asks for one.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// A look that takes longer makes a follower ask whether the database can be reached over a new connection.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A look over new connections that takes no longer proves that the old ones were silent.
const QUICK: Duration = Duration::from_millis(250);

/// What a look has found.
#[derive(Debug)]
pub(super) struct Found {
    /// When the look began: the snapshot was taken later.
    pub(super) began: Instant,
    /// The database's present.
    pub(super) present: Cursor,
    /// The number of the leader's run, if there is a leader.
    pub(super) run: Option<u64>,
    /// The connections did not answer, and new ones do: what was asked over an old one is not answered.
    pub(super) were_silent: bool,
}

/// The looks of one node.
pub(super) struct LeaderWatch {
    log: Log,
    /// A look that has begun. The mutex is never locked: it lets the task move between threads.
    look: Option<Mutex<BoxFuture<'static, Result<Found, sqlx::Error>>>>,
    last: Option<Instant>,
    is_asked: bool,
    renews: bool,
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
            renews: false,
        }
    }

    /// Whether a look that is not answered has all connections made anew. While barriers are sent, they see to that.
    pub(super) fn set_renews(&mut self, renews: bool) {
        self.renews = renews;
    }

    /// A message of another run came: looks soon.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Gives up a look that has begun. Whoever waits for the database and does not call [`LeaderWatch::next`] meanwhile has
    /// to: nothing would move the look on, and it may hold what others wait for, as the probe of the address.
    pub(super) fn let_go(&mut self) {
        self.look = None;
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
            self.look = Some(Mutex::new(
                look(self.log.clone(), began, self.renews).boxed(),
            ));
        }
        let Some(look) = &mut self.look else {
            return std::future::pending().await;
        };
        let found = look.get_mut().unwrap_or_else(PoisonError::into_inner).await;
        self.look = None;
        found
    }
}

/// A network that swallows packets leaves old connections open and silent.
async fn look(log: Log, began: Instant, renews: bool) -> Result<Found, sqlx::Error> {
    let mut asked = pin!(ask(&log));
    let answer = match timeout(PATIENCE, &mut asked).await {
        Ok(answer) => Some(answer),
        Err(_) if !renews || !is_to_renew(&log).await => Some(asked.await),
        Err(_) => None,
    };
    let (answer, were_silent) = if let Some(answer) = answer {
        (answer, false)
    } else {
        log.renew();
        log.ready().await?;
        let again = Instant::now();
        (ask(&log).await, again.elapsed() < QUICK)
    };
    answer.map(|(run, present)| Found {
        began,
        present,
        run,
        were_silent,
    })
}

async fn ask(log: &Log) -> Result<(Option<u64>, Cursor), sqlx::Error> {
    let run = log.leader().await?.map(|leader| leader.run);
    Ok((run, log.present().await?))
}

/// Not where the database answers that it has no connection left.
async fn is_to_renew(log: &Log) -> bool {
    let reached = log.reach().await;
    !matches!(&reached, Err(error @ sqlx::Error::Database(_))
        if store::fault(error) == DatabaseFault::Connections)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Over a network that swallows packets: the pool's connection, the one that asks whether the database is reachable,
    /// and the probe of the address.
    const SILENT: usize = 3;

    #[tokio::test]
    async fn a_look_that_was_given_up_holds_nothing_that_others_wait_for() {
        let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = database.local_addr().unwrap().port();
        let url = format!("postgres://nobody@127.0.0.1:{port}/none?sslmode=disable");
        let log = Log::new(url.parse().unwrap(), 1);
        let mut watch = LeaderWatch::new(log.clone());
        watch.set_renews(true);
        let mut silent = Vec::new();
        while silent.len() < SILENT {
            tokio::select! {
                accepted = database.accept() => silent.push(accepted.unwrap()),
                found = watch.next() => panic!("{found:?} although nothing answers"),
            }
        }
        watch.let_go();
        tokio::select! {
            accepted = database.accept() => drop(accepted.unwrap()),
            ready = log.ready() => panic!("{ready:?} without a connection"),
        }
    }
}
