//! The command line: settings and where they come from, mistakes and their exit code.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{Database, execute, soon};

/// The program, without what the environment says of a database.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hushnet-realtime"));
    command
        .args(arguments)
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Exit code, standard output and standard error.
pub async fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = soon("the command", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn without_arguments_it_prints_help() {
    let (code, help, _) = outcome(&mut program(&[])).await;
    assert_eq!(code, 0);
    for subcommand in [
        "run", "serve", "migrate", "attach", "detach", "sources", "types", "nodes", "tail",
        "token", "demo",
    ] {
        assert!(help.contains(&format!("\n  {subcommand} ")), "{help}");
    }
}

#[tokio::test]
async fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hushnet.toml");
    std::fs::write(
        &file,
        "user_channel_capacity = 32\nping_interval_ms = 1000\npong_timeout_ms = 2000\n\
         drain_deadline_ms = 4000\ninsecure_no_auth = true\n",
    )
    .unwrap();
    let mut command = program(&["serve", "--print-config", "--user-channel-capacity", "128"]);
    command
        .args(["--config", file.to_str().unwrap()])
        .args(["--drain-deadline-ms", "5000"])
        .env("HUSHNET_USER_CHANNEL_CAPACITY", "64")
        .env("HUSHNET_PING_INTERVAL_MS", "3000")
        .env("DATABASE_URL", "postgres://app:s3cret@db/hushnet");
    let (code, printed, error) = outcome(&mut command).await;
    assert_eq!(code, 0, "{error}");
    for line in [
        "user_channel_capacity = 128",
        "ping_interval_ms = 3000",
        "pong_timeout_ms = 2000",
        "drain_deadline_ms = 5000",
        "insecure_no_auth = true",
        "write_timeout_ms = 10000",
        "database_url = \"postgres://app:***@db/hushnet\"",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no line {line} in\n{printed}"
        );
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
async fn mistakes_are_named_and_end_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, "user_channel_capacity = 0\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, said) in [
        (&["serve"][..], "DATABASE_URL"),
        (
            &["serve", "--database-url", "mysql://x"],
            "it must start with postgres://",
        ),
        (
            &["serve", "--user-channel-capacity", "0"],
            "0 is not in 1..=4096",
        ),
        (&["serve", "--config", file], "0 is not in 1..=4096"),
        (
            &["serve", "--config", "/nowhere.toml"],
            "cannot read /nowhere.toml",
        ),
        (&["serve", "--frobnicate"], "--frobnicate"),
        (
            &[
                "serve",
                "--log",
                "loud=very",
                "--database-url",
                "postgres://h/d",
            ],
            "--log loud=very",
        ),
        (
            &[
                "serve",
                "--listen",
                "0.0.0.0:0",
                "--database-url",
                "postgres://h/d",
            ],
            "--insecure-no-auth",
        ),
        (&["run", "--listen", "0.0.0.0:0"], "--insecure-no-auth"),
        (&["migrate", "up"], "DATABASE_URL"),
        (&["tail", "--user", ""], "'--user <ID>'"),
        (
            &[
                "tail",
                "--user",
                "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
                "--url",
                "nonsense",
            ],
            "--url",
        ),
        (
            &["tail", "--token", "t", "--url", "ws://bob:secret@h"],
            "--url takes no user and password",
        ),
    ] {
        let (code, _, error) = outcome(&mut program(arguments)).await;
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(
            error.contains(said) && !error.contains("panicked") && !error.contains("secret"),
            "{arguments:?}: {error}"
        );
    }
    let mut misspelt = program(&["serve"]);
    let (code, _, error) = outcome(misspelt.env("HUSHNET_LISTN", "127.0.0.1:0")).await;
    assert_eq!(code, 2);
    assert!(
        error.contains("unknown environment variable HUSHNET_LISTN"),
        "{error}"
    );
}

#[tokio::test]
async fn the_variables_of_a_kubernetes_service_do_not_keep_serve_from_starting() {
    let link = [
        ("HUSHNET_REALTIME_SERVICE_HOST", "10.96.0.12"),
        ("HUSHNET_REALTIME_SERVICE_PORT", "80"),
        ("HUSHNET_REALTIME_PORT", "tcp://10.96.0.12:80"),
        ("HUSHNET_REALTIME_PORT_80_TCP_ADDR", "10.96.0.12"),
    ];
    let mut command = program(&["serve", "--print-config"]);
    let (code, _, error) = outcome(command.envs(link)).await;
    assert_eq!(code, 0, "{error}");
    let (code, _, error) = outcome(command.env("HUSHNET_REALTIME_LISTEN", "80")).await;
    assert_eq!(code, 2, "{error}");
}

#[tokio::test]
async fn migrate_says_what_is_applied() {
    let database = Database::hushnet().await;
    let migrate = async |action| {
        let mut command = program(&["migrate", action, "--database-url", &database.owner_url()]);
        let (code, printed, error) = outcome(&mut command).await;
        assert_eq!(code, 0, "{error}");
        printed
    };
    assert!(migrate("status").await.starts_with("0001 pending "));
    assert!(migrate("up").await.starts_with("0001 applied "));
    assert!(migrate("down").await.starts_with("0001 pending "));
}

#[tokio::test]
async fn an_error_of_a_migration_is_said_once() {
    let database = Database::migrated().await;
    let mut connection = database.connect().await;
    let broken = "UPDATE realtime._sqlx_migrations SET checksum = 'other' WHERE version = 2";
    execute(&mut connection, broken).await;
    let migrate = |way| program(&["migrate", way, "--database-url", &database.owner_url()]);
    let (code, _, error) = outcome(&mut migrate("up")).await;
    let said = "migration 2 was previously applied but has been modified";
    assert_eq!((code, error.matches(said).count()), (1, 1), "{error}");
    let broken = "ALTER TABLE realtime._sqlx_migrations DROP COLUMN checksum";
    execute(&mut connection, broken).await;
    let (code, _, error) = outcome(&mut migrate("status")).await;
    let said = "\"checksum\" does not exist";
    assert_eq!((code, error.matches(said).count()), (1, 1), "{error}");
}

#[tokio::test]
async fn serve_prints_its_address_and_a_second_signal_ends_it_at_once() {
    let database = Database::migrated().await;
    let mut arguments = vec![
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database-url",
        &database.url,
    ];
    arguments.extend(["--log-format", "json"]);
    // The drain lasts far longer than it takes to send the second signal.
    arguments.extend(["--drain-clients-per-second", "1"]);
    arguments.extend(["--drain-deadline-ms", "3600000"]);
    let mut child = program(&arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon("the address", printed.next_line())
        .await
        .unwrap()
        .unwrap();
    let address = line.strip_prefix("serving on http://").unwrap();
    let mut clients = Vec::new();
    for _ in 0..600 {
        let url = format!("ws://{address}/ws?user_id={}", uuid::Uuid::new_v4());
        clients.push(tokio_tungstenite::connect_async(url).await.unwrap());
    }

    let pid = child.id().unwrap().to_string();
    let terminate = || Command::new("kill").args(["-TERM", &pid]).status();
    assert!(terminate().await.unwrap().success());
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = soon("the drain", log.next_line()).await.unwrap().unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
        if entry["fields"]["event"] == "draining" {
            break;
        }
    }
    assert!(terminate().await.unwrap().success());
    assert_eq!(
        soon("the end", child.wait()).await.unwrap().code(),
        Some(128 + 15)
    );
}

/// A table that grows while clients connect delays all of them.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_table_of_descriptors_has_room_for_all_connections_from_the_start() {
    let database = Database::migrated().await;
    let mut child = program(&["serve", "--listen", "127.0.0.1:0"])
        .args(["--connections-max", "3000"])
        .args(["--database-url", &database.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
    soon("the address", printed.next_line()).await.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    let size: usize = size.unwrap().trim().parse().unwrap();
    assert!(size >= 4_024, "{size}");
}

#[tokio::test]
async fn a_token_is_made_and_checked_by_the_server_s_settings() {
    let (user, device) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let (user, device) = (user.to_string(), device.to_string());
    let token = |arguments: &[&str]| {
        let mut command = program(&["token"]);
        command
            .args(arguments)
            .env("HUSHNET_JWT_ALGORITHM", "HS256")
            .env("HUSHNET_JWT_KEY", "a secret of thirty-two bytes, or more")
            .env("HUSHNET_JWT_AUDIENCE", "realtime")
            .env("HUSHNET_JWT_LEEWAY_S", "0");
        command
    };
    let (code, made, error) = outcome(&mut token(&["--user", &user, "--device", &device])).await;
    assert_eq!(code, 0, "{error}");
    let made = made.trim();
    let (code, said, error) = outcome(&mut token(&["--check", made])).await;
    assert_eq!(code, 0, "{error}");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["user_id"], &said["device_id"]),
        (&user.into(), &device.into())
    );

    let elsewhere = ["--check", made, "--jwt-audience", "mail"];
    let other_issuer = ["--check", made, "--jwt-issuer", "https://issuer.example"];
    for (arguments, code) in [
        (&elsewhere[..], "token_audience"),
        (&other_issuer, "token_issuer"),
        (&["--check", "nonsense"], "token_malformed"),
    ] {
        let (status, _, error) = outcome(&mut token(arguments)).await;
        assert!(status == 1 && error.contains(code), "{status} {error}");
    }
    let (status, _, error) =
        outcome(&mut token(&["--check", made, "--jwt-key-file", "/nowhere"])).await;
    assert!(
        status == 2 && error.contains("one of --jwt-key"),
        "{status} {error}"
    );
}

#[tokio::test]
async fn a_database_s_address_is_never_printed_when_it_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hushnet.toml");
    let wrong = "postgres://app:Tr0ub4dor/x9zzyq@127.0.0.1:1/hushnet";
    std::fs::write(&file, format!("database_url = '{wrong}'\n")).unwrap();
    for arguments in [
        &["serve"][..],
        &["migrate", "up"],
        &["history", "renew"],
        &["serve", "--database-url", wrong],
        &["serve", "--config", file.to_str().unwrap()],
        &["serve", "--print-config"],
    ] {
        let mut command = program(arguments);
        if !arguments.contains(&"--config") {
            command.env("DATABASE_URL", wrong);
        }
        let (code, printed, error) = outcome(&mut command).await;
        assert_eq!(code, 2, "{arguments:?}: {error}");
        assert!(error.contains("must be written as %2F"), "{error}");
        for half in ["Tr0ub4dor", "x9zzyq"] {
            assert!(!printed.contains(half) && !error.contains(half), "{error}");
        }
    }
}

#[tokio::test]
async fn a_key_is_never_printed() {
    let mut command = program(&["serve", "--print-config", "--auth=jwt+device"]);
    command.env("HUSHNET_JWT_KEY", "s3cret");
    let (code, printed, error) = outcome(&mut command).await;
    assert_eq!(code, 0, "{error}");
    assert!(
        printed.contains("jwt_key = \"***\"") && !printed.contains("s3cret"),
        "{printed}"
    );
    assert!(printed.contains("auth = \"jwt+device\""), "{printed}");
}

#[tokio::test]
async fn incomplete_settings_of_identity_and_tls_are_named_before_anything_is_served() {
    for (arguments, said) in [
        ("--auth=jwt", "--jwt-algorithm"),
        (
            "--auth=jwt --jwt-algorithm=RS256",
            "one of --jwt-key, --jwt-key-file and --jwt-jwks-url",
        ),
        (
            "--auth=jwt --jwt-algorithm=HS256 --jwt-key=short",
            "32 bytes or more",
        ),
        (
            "--auth=jwt --jwt-algorithm=ES256 --jwt-key=nothing",
            "no public key in PEM",
        ),
        (
            "--auth=jwt --jwt-algorithm=RS256 --jwt-jwks-url=http://keys.example/set",
            "it must be https",
        ),
        ("--tls-key-file=key.pem", "--tls-certificate-file"),
        (
            "--tls-certificate-file=/nowhere --tls-key-file=/nowhere",
            "cannot serve TLS with /nowhere",
        ),
        (
            "--unlimited-addresses=10.0.0.0/99",
            "10.0.0.0/99 is not a network",
        ),
        (
            "--allowed-origins=app.example",
            "app.example is not an origin",
        ),
        (
            "--allowed-origins=https://*.example",
            "https://*.example names no single origin",
        ),
    ] {
        let mut command = program(&["serve", "--database-url=postgres://h/d"]);
        let (code, printed, error) = outcome(command.args(arguments.split(' '))).await;
        assert!(error.contains(said), "{arguments}: {error}");
        assert_eq!((code, printed.as_str()), (2, ""), "{arguments}");
    }
}
