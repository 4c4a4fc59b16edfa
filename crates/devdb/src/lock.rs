//! The two locks of a directory. The kernel unlocks a file when the last process that holds it open
//! has ended, whatever ended it.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::ClusterError;
use crate::files;
use crate::supervisor::FAST_SHUTDOWN_DEADLINE;
use crate::wait::until;

/// Held by the service that uses the directory.
///
/// Dropping unlocks explicitly. Closing the file would not be enough: a child process that another
/// thread has just forked holds a copy of the file until it executes its program.
#[derive(Debug)]
pub(crate) struct ServiceLock(File);

impl ServiceLock {
    /// Fails if another living service holds the directory.
    pub(crate) fn acquire(directory: &Path) -> Result<Self, ClusterError> {
        let path = directory.join("service.lock");
        let file = files::open_append(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(ClusterError::InUse {
                directory: directory.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(ClusterError::io("lock", &path)(error)),
        }
    }
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        // If this fails, the kernel unlocks the file when it is closed.
        let _ = self.0.unlock();
    }
}

/// Takes the lock that a supervisor holds while its server runs. Waits until the supervisor of a
/// service that was killed has stopped its server.
pub(crate) async fn acquire_supervisor_lock(directory: &Path) -> Result<File, ClusterError> {
    let path = directory.join("supervisor.lock");
    let lock = files::open_append(&path)?;
    let mut failure = None;
    let locked = until(FAST_SHUTDOWN_DEADLINE, || match lock.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            failure = Some(error);
            true
        }
    });
    match (locked.await, failure) {
        (true, None) => Ok(lock),
        (true, Some(error)) => Err(ClusterError::io("lock", &path)(error)),
        (false, _) => Err(ClusterError::NotStopped {
            data: directory.join("data"),
            after: FAST_SHUTDOWN_DEADLINE,
        }),
    }
}
