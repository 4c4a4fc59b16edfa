//! What the program writes and nobody reads: closed pipes and full ones stop nothing, and no command panics.

use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use hushnet_testkit::program::{Output, Program, command};
use hushnet_testkit::server::Server;
use serde_json::Value;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use uuid::Uuid;

use crate::support::{
    Client, Database, User, add_device, add_user, connect_client, insert_message, notify, soon,
    until,
};

const DROPPED: &str = "hushnet_log_lines_dropped_total";
const MALFORMED: &str = "hushnet_notifications_malformed_total{channel=\"messages_channel\"}";
/// Lines that are logged between two looks at the metrics. They have over 100 bytes each.
const LINES_AT_ONCE: i32 = 2_000;

fn program(arguments: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command.args(arguments);
    command
}

/// `serve` with a log in JSON that goes into `log`.
fn serve(database: &Database, log: PipeWriter, settings: &[&str]) -> Command {
    let mut command = program(&["serve", "--listen=127.0.0.1:0", "--log-format=json"]);
    command
        .args(["--database-url", &database.url])
        .args(settings)
        .stderr(log);
    command
}

/// A pipe that nobody reads any more.
fn closed() -> PipeWriter {
    pipe().unwrap().1
}

fn lines(reader: PipeReader) -> Output<Receiver> {
    Output::new(Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap())
}

/// Reads up to the line of this event.
async fn until_event(log: &mut Output<Receiver>, event: &str) -> Value {
    loop {
        let line = log.next().await;
        let line = line.unwrap_or_else(|| panic!("the log ended without {event}"));
        let fields = serde_json::from_str::<Value>(&line).unwrap()["fields"].take();
        if fields["event"] == event {
            return fields;
        }
    }
}

/// Two users of a service. The second is connected.
struct Scene {
    server: Server,
    database: Database,
    alice: User,
    bob: User,
    client: Client,
}

impl Scene {
    async fn start(log: PipeWriter, settings: &[&str]) -> Self {
        let database = Database::migrated().await;
        let pool = database.pool().await;
        let (alice, bob) = (add_user(&pool).await, add_user(&pool).await);
        let server = Server::start(&mut serve(&database, log, settings)).await;
        server.until_ready().await;
        let url = format!("ws://{}/ws?user_id={}", server.address(), bob.id);
        let client = connect_client(&url).await;
        Self {
            server,
            database,
            alice,
            bob,
            client,
        }
    }

    async fn event_arrives(&mut self) {
        let pool = self.database.pool().await;
        insert_message(&pool, None, &self.alice, &self.bob).await;
        self.client.until_type("message").await;
    }

    /// Has lines logged until some are dropped. Returns how many were, when all have been logged.
    async fn log_until_lines_are_dropped(&self) -> f64 {
        let pool = self.database.pool().await;
        let mut logged = 0;
        while self.server.metric(DROPPED).await == 0.0 {
            sqlx::query(
                "SELECT pg_notify('messages_channel', 'nonsense ' || i) FROM generate_series(1, $1) AS i",
            )
            .bind(LINES_AT_ONCE)
            .execute(&pool)
            .await
            .unwrap();
            logged += LINES_AT_ONCE;
            until("the lines are logged", async || {
                self.server.metric(MALFORMED).await >= f64::from(logged)
            })
            .await;
        }
        self.server.metric(DROPPED).await
    }
}

#[tokio::test]
async fn a_log_whose_reader_has_gone_stops_nothing() {
    let mut scene = Scene::start(closed(), &[]).await;
    let pool = scene.database.pool().await;
    let before = scene.server.metric(DROPPED).await;
    notify(&pool, "messages_channel", "nonsense").await;
    until("a line is dropped", async || {
        scene.server.metric(DROPPED).await > before
    })
    .await;
    scene.event_arrives().await;
    scene.database.end_listener().await;
    until("the listener has connected again", async || {
        scene
            .server
            .metric("hushnet_listener_reconnects_total")
            .await
            > 0.0
            && scene.server.metric("hushnet_feed_live").await > 0.0
    })
    .await;
    scene.event_arrives().await;
    scene.server.program.signal("TERM").await;
    assert_eq!(scene.client.close_code().await, 1012);
    assert!(scene.server.program.ended().await.success());
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_its_dropped_lines_are_counted_and_said_once() {
    let (reader, log) = pipe().unwrap();
    let mut scene = Scene::start(log, &[]).await;
    let dropped = scene.log_until_lines_are_dropped().await;
    scene.event_arrives().await;

    let mut log = lines(reader);
    let said = until_event(&mut log, "log_lines_dropped").await;
    assert_eq!(said["lines"].as_f64(), Some(dropped));
    let pool = scene.database.pool().await;
    notify(&pool, "messages_channel", "after the gap").await;
    until_event(&mut log, "notification_malformed").await;
    let dropped = scene.server.metric(DROPPED).await;
    assert_eq!(said["lines"].as_f64(), Some(dropped));

    scene.server.program.signal("TERM").await;
    until_event(&mut log, "draining").await;
    while let Some(line) = log.next().await {
        assert!(!line.contains("log_lines_dropped"), "{line}");
    }
    assert!(scene.server.program.ended().await.success());
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_log_that_nobody_reads() {
    let (_reader, log) = pipe().unwrap();
    let mut scene = Scene::start(log, &["--drain-deadline-ms=100"]).await;
    scene.log_until_lines_are_dropped().await;
    scene.event_arrives().await;
    // The client does not answer the close frame, so the program also has an error to print.
    scene.server.program.signal("TERM").await;
    assert_eq!(scene.server.program.ended().await.code(), Some(1));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_although_nobody_reads_its_log() {
    let (_reader, log) = pipe().unwrap();
    let mut scene = Scene::start(log, &["--drain-deadline-ms=3600000"]).await;
    scene.log_until_lines_are_dropped().await;
    scene.server.program.signal("TERM").await;
    // The client reads no close frame.
    until("the drain", async || {
        let answer = hushnet_testkit::http::get(scene.server.address(), "/readyz").await;
        answer.is_ok_and(|answer| answer.body.contains("draining"))
    })
    .await;
    scene.server.program.signal("TERM").await;
    assert_eq!(scene.server.program.ended().await.code(), Some(128 + 15));
}

#[tokio::test]
async fn the_last_words_are_in_the_log() {
    let (reader, log) = pipe().unwrap();
    let mut scene = Scene::start(log, &["--drain-deadline-ms=100"]).await;
    // The client does not answer the close frame.
    scene.server.program.signal("TERM").await;
    assert_eq!(scene.server.program.ended().await.code(), Some(1));
    let mut log = lines(reader);
    until_event(&mut log, "draining").await;
    let mut last = String::new();
    while let Some(line) = log.next().await {
        last = line;
    }
    assert!(
        last.starts_with("error: ") && last.contains("had not ended"),
        "{last}"
    );
}

/// Exit code and standard error of a command whose standard output is closed.
async fn without_output(command: &mut Command) -> (Option<i32>, String) {
    command.stdout(closed()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let ended = soon("the command", child.wait_with_output()).await.unwrap();
    (
        ended.status.code(),
        String::from_utf8(ended.stderr).unwrap(),
    )
}

#[tokio::test]
async fn a_command_whose_output_is_closed_ends_quietly() {
    let database = Database::hushnet().await;
    let url = ["--database-url", &database.owner_url()];
    let user = Uuid::new_v4().to_string();
    let secret = "--jwt-key=a secret of thirty-two bytes, or more";
    let token = [
        "token",
        "--jwt-algorithm=HS256",
        secret,
        "--jwt-audience=realtime",
    ];
    let made = program(&token).args(["--user", &user]).output();
    let made = String::from_utf8(made.await.unwrap().stdout).unwrap();
    let made = made.trim();
    let pool = database.pool().await;
    add_user(&pool).await;
    let name: String = sqlx::query_scalar("SELECT username FROM users")
        .fetch_one(&pool)
        .await
        .unwrap();
    let from = ["--from", &name, "--to", &name];
    for arguments in [
        &[][..],
        &["--help"],
        &["--version"],
        &["help", "serve"],
        &["serve", "--print-config"],
        &[&token[..], &["--user", &user]].concat(),
        &[&token[..], &["--check", made]].concat(),
        &[&["migrate", "status"][..], &url].concat(),
        &[&["migrate", "up"][..], &url].concat(),
        &[&["demo", "send"][..], &from, &url].concat(),
        &[&["migrate", "down"][..], &url].concat(),
    ] {
        let (code, said) = without_output(&mut program(arguments)).await;
        // What takes long is reported as it goes.
        let mut said = said
            .lines()
            .filter(|line| !line.contains("building an index"));
        assert_eq!((code, said.next()), (Some(0), None), "{arguments:?}");
    }
}

#[tokio::test]
async fn tail_ends_when_its_output_is_closed_although_no_event_comes() {
    let server = crate::support::Server::start().await;
    let url = format!("ws://{}", server.address());
    let user = Uuid::new_v4().to_string();
    let tail = || program(&["tail", "--url", &url, "--user", &user]);
    let (code, said) = without_output(&mut tail()).await;
    assert!(
        code == Some(0) && !said.contains("error"),
        "{code:?} {said}"
    );

    let (reader, output) = pipe().unwrap();
    let mut reading = tail();
    let mut child = reading
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Output::new(child.stderr.take().unwrap());
    said.after("connected to ").await;
    drop(reader);
    assert!(
        soon("the end of tail", child.wait())
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn tail_goes_on_when_its_standard_error_is_closed() {
    let server = crate::support::Server::start().await;
    let pool = server.db().await;
    let bob = add_user(&pool).await;
    let url = format!("ws://{}", server.address());
    let mut tail = program(&["tail", "--url", &url, "--user", &bob.id.to_string()]);
    let mut tail = Program::start(tail.stderr(closed()));
    server.until_metric("hushnet_connections_open", 1.0).await;
    add_device(&pool, bob.id).await;
    let event: Value = serde_json::from_str(&tail.output.line().await).unwrap();
    assert_eq!(event["type"], "device");
}

/// Its one line is for whoever starts it; the service is needed without it.
#[tokio::test]
async fn serve_goes_on_when_its_output_is_closed() {
    let database = Database::migrated().await;
    let (reader, log) = pipe().unwrap();
    let mut child = serve(&database, log, &[]).stdout(closed()).spawn().unwrap();
    let mut log = lines(reader);
    until_event(&mut log, "listener_connected").await;
    let pid = child.id().expect("the service has ended");
    hushnet_testkit::program::signal("TERM", pid).await;
    until_event(&mut log, "draining").await;
    assert!(soon("the end", child.wait()).await.unwrap().success());
}
