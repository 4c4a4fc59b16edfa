//! Starting a server on a data directory, or taking over one that runs there already.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::PORT;
use crate::binaries::Binaries;
use crate::error::ClusterError;
use crate::layout::Layout;
use crate::postmaster::Postmaster;
use crate::supervisor::Supervisor;
use crate::wait::until;
use crate::{files, initdb, server_log, socket};

/// A start may include recovery after a crash of the machine.
const START_DEADLINE: Duration = Duration::from_mins(2);
/// Lines of the server's log in the error of a failed start.
const LOG_TAIL_LINES: usize = 20;

/// A server that takes connections.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) supervisor: Supervisor,
    /// The directory of its socket.
    pub(crate) socket: PathBuf,
    pub(crate) port: u16,
}

/// Finds a server that still runs although its service and its supervisor have ended. Waits until
/// it takes connections, or until it has ended if it is shutting down. Removes the `postmaster.pid`
/// of a server that has died.
pub(crate) async fn find_running(layout: &Layout) -> Result<Option<Postmaster>, ClusterError> {
    let mut last = None;
    let settled = until(START_DEADLINE, || {
        last = Postmaster::read(&layout.data);
        last.as_ref()
            .is_none_or(|found| found.ready || !found.is_alive(&layout.data))
    })
    .await;
    match last {
        Some(found) if !settled => Err(not_started(
            layout,
            format!("process {} serves its data and is not ready", found.pid),
            0,
        )),
        Some(found) if found.is_alive(&layout.data) => Ok(Some(found)),
        Some(stale) => stale.remove_file(&layout.data).map(|()| None),
        None => Ok(None),
    }
}

/// Uses a server that runs already, and starts a supervisor for it.
pub(crate) fn take_over(
    layout: &Layout,
    found: Postmaster,
    lock: File,
) -> Result<Started, ClusterError> {
    tracing::info!(pid = found.pid, data = %layout.data.display(), "private postgres found running");
    let log = files::open_append(&layout.log())?;
    Ok(Started {
        supervisor: Supervisor::adopt(found.pid, layout.account, lock, log)?,
        socket: found.socket,
        port: found.port,
    })
}

/// Creates the data directory if there is none, starts the server and waits until it takes
/// connections.
pub(crate) async fn launch(
    layout: &Layout,
    settings: &[(&str, &str)],
    lock: File,
) -> Result<Started, ClusterError> {
    let major = layout.major()?;
    let Some(binaries) = Binaries::find(major.as_deref()).await else {
        return Err(match major {
            None => ClusterError::NotInstalled,
            Some(major) => ClusterError::OtherVersion {
                data: layout.data.clone(),
                major,
            },
        });
    };
    if major.is_none() {
        let flush = !settings.contains(&("fsync", "off"));
        initdb::create_data(layout, &binaries, flush, &lock).await?;
    }
    let socket = socket::make_directory(layout).await?;
    server_log::rotate(&layout.log())?;
    let log_start = server_log::bytes(&layout.log());
    let log = files::open_append(&layout.log())?;

    let mut command = vec![
        binaries.path("postgres").into_os_string(),
        "-D".into(),
        layout.data.clone().into_os_string(),
    ];
    let ours = [
        ("listen_addresses", ""),
        ("port", &PORT.to_string()),
        ("unix_socket_directories", &socket.to_string_lossy()),
        ("unix_socket_permissions", "0700"),
    ];
    for (name, value) in ours.iter().chain(settings) {
        command.extend(["-c".into(), format!("{name}={value}").into()]);
    }
    let mut supervisor = Supervisor::launch(&command, layout.account, lock, log)?;
    wait_until_ready(layout, &mut supervisor, log_start).await?;
    Ok(Started {
        supervisor,
        socket,
        port: PORT,
    })
}

/// Waits until the server takes connections. If it does not, the error shows its log from the byte
/// `log_start` on.
async fn wait_until_ready(
    layout: &Layout,
    supervisor: &mut Supervisor,
    log_start: u64,
) -> Result<(), ClusterError> {
    let is_ready =
        || Postmaster::read(&layout.data).is_some_and(|found| found.ready && found.accepts());
    let mut ready = false;
    let decided = until(START_DEADLINE, || {
        ready = is_ready();
        ready || supervisor.has_exited()
    })
    .await;
    if ready {
        return Ok(());
    }
    let why = if decided {
        "the server ended".to_owned()
    } else {
        format!("not ready after {} s", START_DEADLINE.as_secs())
    };
    Err(not_started(layout, why, log_start))
}

fn not_started(layout: &Layout, why: String, log_start: u64) -> ClusterError {
    let log = layout.log();
    ClusterError::NotStarted {
        why,
        tail: server_log::tail(&log, log_start, LOG_TAIL_LINES),
        log,
    }
}
