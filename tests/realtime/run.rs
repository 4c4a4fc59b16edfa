//! `run` as a new user starts it: the binary, its private PostgreSQL, and the lines that it prints.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use sqlx::Connection;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

use crate::cli::{outcome, program};
use crate::support::{Database, connect_client, execute, soon};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");

/// A `run` in a directory of its own, ready to be tried.
struct Run {
    child: Child,
    /// The lines that it prints to try: an address, `tail`, `demo send`, the page, `export DATABASE_URL`.
    invited: Vec<String>,
}

type Reader<R> = Lines<BufReader<R>>;

fn lines<R: AsyncRead>(reader: R) -> Reader<R> {
    BufReader::new(reader).lines()
}

async fn next_line<R: AsyncRead + Unpin>(reader: &mut Reader<R>) -> String {
    soon("a line", reader.next_line())
        .await
        .unwrap()
        .expect("the output ended")
}

/// A directory that PostgreSQL's account can reach when the tests run as root.
fn directory() -> tempfile::TempDir {
    let open = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new()
        .permissions(open)
        .tempdir()
        .unwrap()
}

/// A command line run by the shell in the directory, as it was printed.
fn shell(line: &str, directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("exec {line}"))
        .current_dir(directory)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Run {
    async fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[]).await
    }

    async fn start_with(directory: &Path, variables: &[(&str, &str)]) -> Self {
        let mut child = shell(
            &format!("{PROGRAM} run --listen 127.0.0.1:0 --log warn"),
            directory,
        )
        .envs(variables.iter().copied())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
        let mut output = lines(child.stdout.take().unwrap());
        let first = next_line(&mut output).await;
        assert!(first.starts_with("serving on http://127.0.0.1:"), "{first}");
        let mut invited = Vec::new();
        for _ in 0..5 {
            invited.push(next_line(&mut output).await.trim().to_owned());
        }
        Self { child, invited }
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    async fn demo_send(&self, directory: &Path) -> Output {
        soon("demo send", shell(&self.invited[2], directory).output())
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn the_printed_lines_work_as_printed() {
    let directory = directory();
    let mut run = Run::start(directory.path()).await;
    let [address, tail, send, page, _] = &run.invited[..] else {
        panic!("{:?}", run.invited)
    };
    assert!(address.starts_with("ws://127.0.0.1:"), "{address}");
    assert!(
        tail.starts_with(&format!("{PROGRAM} tail --user ")),
        "{tail}"
    );
    assert!(send.starts_with(&format!("{PROGRAM} demo send ")), "{send}");

    let page = soon("the page", reqwest::get(page)).await.unwrap();
    assert_eq!(page.status(), 200);

    let mut client = connect_client(address).await;
    let mut tail = shell(tail, directory.path()).spawn().unwrap();
    let mut said = lines(tail.stderr.take().unwrap());
    assert!(next_line(&mut said).await.starts_with("connected to ws://"));

    for _ in 0..2 {
        let output = run.demo_send(directory.path()).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(client.next_json().await["type"], "message");
    }
    let mut printed = lines(tail.stdout.take().unwrap());
    for _ in 0..2 {
        let event: Value = serde_json::from_str(&next_line(&mut printed).await).unwrap();
        assert_eq!(event["type"], "message");
        assert!(address.ends_with(event["user_id"].as_str().unwrap()));
    }

    run.signal("-TERM").await;
    assert_eq!(client.close_code().await, 1012);
    assert!(
        soon("the end of run", run.child.wait())
            .await
            .unwrap()
            .success()
    );
    let after = run.demo_send(directory.path()).await;
    assert_eq!(after.status.code(), Some(2), "{after:?}");
    assert!(String::from_utf8_lossy(&after.stderr).contains("no service runs on .hushnet"));
}

#[tokio::test]
async fn a_table_of_the_private_database_is_attached_by_what_is_printed_and_by_the_directory() {
    let directory = directory();
    let mut run = Run::start(directory.path()).await;
    let export = &run.invited[4];
    assert!(export.starts_with("export DATABASE_URL="), "{export}");
    let printed = Command::new("sh")
        .args(["-c", &format!("{export}; printf %s \"$DATABASE_URL\"")])
        .output();
    let url = String::from_utf8(printed.await.unwrap().stdout).unwrap();
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    execute(
        &mut connection,
        "CREATE TABLE orders (id int PRIMARY KEY, buyer uuid, status text)",
    )
    .await;

    // The directory goes before a variable. Two flags are a mistake.
    let by_directory = async |arguments: &[&str]| {
        let mut command = program(arguments);
        command
            .args(["--directory", ".hushnet"])
            .env("DATABASE_URL", "postgres://elsewhere/other")
            .env("PGHOST", "elsewhere")
            .current_dir(directory.path());
        outcome(&mut command).await
    };
    let attach = [
        "attach", "orders", "--user", "buyer", "--kind", "order", "--fields", "status",
    ];
    let (code, said, error) = by_directory(&attach).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        said.ends_with("-- order: events of public.orders\n"),
        "{said}"
    );
    let (_, sources, _) = by_directory(&["sources"]).await;
    assert!(
        sources.contains("order: insert, update, delete of public.orders\n"),
        "{sources}"
    );
    let by_url =
        async |arguments: &[&str]| outcome(program(arguments).env("DATABASE_URL", &url)).await;
    let types = ["types", "--typescript"];
    let (code, written, error) = by_directory(&types).await;
    assert_eq!(code, 0, "{error}");
    assert!(written.contains("TruncatedEvent<'order', "), "{written}");
    assert_eq!(by_url(&types).await, (0, written, String::new()));
    let (code, said, error) = by_directory(&["detach", "order"]).await;
    assert_eq!(
        (code, &*said),
        (0, "order: no more events of public.orders\n"),
        "{error}"
    );
    let (code, _, error) = by_directory(&["sources", "--database-url", &url]).await;
    assert!(
        code == 2 && error.contains("cannot be used with"),
        "{error}"
    );

    run.signal("-TERM").await;
    soon("the end of run", run.child.wait()).await.unwrap();
    let (code, _, error) = by_directory(&["sources"]).await;
    assert!(
        code == 2 && error.contains("no service runs on .hushnet"),
        "{error}"
    );
}

#[tokio::test]
async fn a_second_run_finds_the_data_of_one_that_was_killed() {
    let directory = directory();
    let mut first = Run::start(directory.path()).await;
    first.signal("-KILL").await;
    soon("the end of run", first.child.wait()).await.unwrap();

    let mut second = Run::start(directory.path()).await;
    let user = |run: &Run| run.invited[0].rsplit_once('=').unwrap().1.to_owned();
    assert_eq!(user(&second), user(&first), "the demo user is another");
    assert!(second.demo_send(directory.path()).await.status.success());
    second.signal("-INT").await;
    assert!(
        soon("the end of run", second.child.wait())
            .await
            .unwrap()
            .success()
    );
}

/// Whether `run` and `demo` have put nothing into a database of the application.
async fn is_untouched(database: &Database) -> bool {
    let users = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM users");
    let schemas = sqlx::query_scalar::<_, i64>(
        "SELECT count(*) FROM pg_namespace WHERE nspname = 'realtime'",
    );
    let pool = database.pool().await;
    (
        users.fetch_one(&pool).await.unwrap(),
        schemas.fetch_one(&pool).await.unwrap(),
    ) == (0, 0)
}

#[tokio::test]
async fn a_database_that_the_environment_names_is_left_alone() {
    let application = Database::hushnet().await;
    assert!(is_untouched(&application).await);
    let directory = directory();
    let file = directory.path().join("hushnet.toml");
    std::fs::write(&file, format!("database_url = '{}'\n", application.url)).unwrap();
    let file = file.to_str().unwrap();
    let url: reqwest::Url = application.url.parse().unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap().to_string());
    let host = url
        .query_pairs()
        .find(|(name, _)| name == "host")
        .map_or_else(|| host.to_owned(), |(_, host)| host.into_owned());
    let name = url.path().trim_start_matches('/');
    for variables in [
        &[("DATABASE_URL", application.url.as_str())][..],
        &[("HUSHNET_CONFIG", file)],
        &[
            ("PGHOST", &host),
            ("PGPORT", &port),
            ("PGUSER", url.username()),
            ("PGDATABASE", name),
        ],
        // None of them would let the private database be used.
        &[
            (
                "PGOPTIONS",
                "-c no_setting.of=ours -c default_transaction_read_only=maybe",
            ),
            ("PGPORT", "many"),
            ("PGSSLMODE", "sometimes"),
            ("PGSERVICE", "other"),
            ("PGSSLROOTCERT", "/nowhere"),
        ],
    ] {
        let mut run = Run::start_with(directory.path(), variables).await;
        let mut command = shell(&run.invited[2], directory.path());
        command.envs(variables.iter().copied());
        let sent = soon("demo send", command.output()).await.unwrap();
        assert!(sent.status.success(), "{sent:?}");
        run.signal("-TERM").await;
        soon("the end of run", run.child.wait()).await.unwrap();
        assert!(is_untouched(&application).await, "{variables:?}");
    }
    // A flag is meant.
    let line = format!(
        "{PROGRAM} run --listen 127.0.0.1:0 --database-url '{}'",
        application.owner_url()
    );
    let mut child = shell(&line, directory.path())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut output = lines(child.stdout.take().unwrap());
    let first = next_line(&mut output).await;
    assert!(first.starts_with("serving on "), "{first}");
    assert!(!is_untouched(&application).await);
}
