//! libpq's variables and the password file, as a user of the program has them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use hushnet_testkit::program::{self, Program};
use sqlx::postgres::PgConnectOptions;
use tokio::process::Command;

use crate::support::{Database, PASSWORD, ROLE, TlsDatabase, soon};

const PROGRAM: &str = env!("CARGO_BIN_EXE_hushnet-realtime");

/// The program without anything of this process's environment that names a database.
fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = program::command(PROGRAM);
    command.args(arguments).env("HOME", "/nowhere");
    command.envs(variables.iter().copied());
    command
}

/// Exit code, and everything that was printed.
async fn outcome(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = command(arguments, variables);
    let output = soon("the command", command.output()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    (output.status.code().unwrap(), printed)
}

/// The variables that lead to this database.
fn variables_of(database: &Database) -> Vec<(&'static str, String)> {
    let options: PgConnectOptions = database.owner_url().parse().unwrap();
    vec![
        (
            "PGHOST",
            options.get_socket().unwrap().display().to_string(),
        ),
        ("PGPORT", options.get_port().to_string()),
        ("PGUSER", options.get_username().to_owned()),
        ("PGDATABASE", options.get_database().unwrap().to_owned()),
    ]
}

#[tokio::test]
async fn variables_name_a_database_as_they_do_for_psql_and_it_is_said() {
    let database = Database::hushnet().await;
    let variables = variables_of(&database);
    let mut variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    variables.extend([("PGPASSWORD", "s3cret"), ("PGCONNECT_TIMEOUT", "3")]);
    variables.push(("PGOPTIONS", "-c search_path=nowhere"));
    let (code, printed) = outcome(&["migrate", "up"], &variables).await;
    assert_eq!(code, 0, "{printed}");
    let name = variables[3].1;
    for said in [
        &format!("/{name}?host="),
        "with PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGOPTIONS",
        "warning: PGCONNECT_TIMEOUT is not used: ",
        "0001 applied ",
    ] {
        assert!(printed.contains(said), "no {said} in {printed}");
    }
    assert!(!printed.contains("s3cret"), "{printed}");

    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let mut command = command(&arguments, &variables);
    command.stderr(Stdio::piped());
    let mut serve = Program::start(&mut command);
    let mut log = serve.log.take().unwrap();
    let (mut address, mut not_used) = (None, None);
    while address.is_none() || not_used.is_none() {
        let line = log.line().await;
        assert!(!line.contains("s3cret"), "{line}");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = line["fields"].clone();
        match fields["event"].as_str() {
            Some("database_address") => address = Some(fields),
            Some("database_setting_not_used") => not_used = Some(fields),
            _ => {}
        }
    }
    let address = address.unwrap();
    assert!(
        address["address"].as_str().unwrap().contains(name),
        "{address}"
    );
    assert_eq!(address["password_of"], "PGPASSWORD");
    assert_eq!(
        address["variables"],
        "PGHOST PGPORT PGDATABASE PGUSER PGPASSWORD PGOPTIONS"
    );
    assert_eq!(not_used.unwrap()["what"], "PGCONNECT_TIMEOUT");
    serve.kill().await;
}

#[tokio::test]
async fn what_cannot_be_used_ends_the_command_and_is_not_printed() {
    for (variables, said) in [
        (
            &[("PGHOST", "h"), ("PGPORT", "s3cret")][..],
            "PGPORT is not a port",
        ),
        (
            &[("PGHOST", "h"), ("PGSSLMODE", "s3cret")],
            "PGSSLMODE must be disable, ",
        ),
        (&[("PGHOST", "s3cret,h")], "PGHOST names several hosts"),
        (&[("PGSERVICE", "s3cret")], "PGSERVICE cannot be used: "),
        (
            &[
                ("DATABASE_URL", "postgres://app:s3cret@h/d"),
                ("PGREQUIREAUTH", "s3cret"),
            ],
            "PGREQUIREAUTH cannot be used: ",
        ),
        (
            &[("DATABASE_URL", "postgres://app:s3cret@a,b/d")],
            "names several hosts",
        ),
        (
            &[("DATABASE_URL", "postgres://app:s3cret@h/d?passwort=s3cret")],
            "unknown parameter passwort;",
        ),
    ] {
        for arguments in [&["serve"][..], &["migrate", "up"], &["history", "renew"]] {
            let (code, printed) = outcome(arguments, variables).await;
            assert_eq!(code, 2, "{arguments:?}: {printed}");
            assert!(printed.contains(said), "{arguments:?}: {printed}");
            assert!(!printed.contains("s3cret"), "{arguments:?}: {printed}");
        }
    }
}

#[tokio::test]
async fn the_password_file_is_used_unless_others_may_read_it() {
    let database = TlsDatabase::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgpass");
    let port = database.port.to_string();
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    fs::write(
        &file,
        format!("s3cret\n*:{port}:hushnet:{ROLE}:{escaped}\n"),
    )
    .unwrap();
    let root = database.root();
    let variables = [
        ("PGHOST", "localhost"),
        ("PGPORT", &port),
        ("PGUSER", ROLE),
        ("PGDATABASE", "hushnet"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", root.to_str().unwrap()),
        ("PGPASSFILE", file.to_str().unwrap()),
    ];
    for (mode, is_used, said) in [
        (
            0o600,
            true,
            "line 1 is not host:port:database:user:password",
        ),
        (0o644, false, "chmod 600 it"),
        (0o620, false, "chmod 600 it"),
    ] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let (code, printed) = outcome(&["migrate", "status"], &variables).await;
        assert_eq!(code, i32::from(!is_used), "{mode:o}: {printed}");
        assert_eq!(printed.contains("0001 pending"), is_used, "{printed}");
        assert!(printed.contains(said), "{mode:o}: {printed}");
        assert!(!printed.contains("s3cret"), "{printed}");
    }
}

/// The private database needs no password, and nothing is said of a file that has some.
#[tokio::test]
async fn run_prints_nothing_of_a_password_file() {
    let directory = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let file = directory.path().join(".pgpass");
    fs::write(&file, "s3cret\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let home = directory.path().to_str().unwrap();
    let variables = [("HOME", home), ("PGPASSFILE", file.to_str().unwrap())];
    let mut command = command(&["run", "--listen", "127.0.0.1:0"], &variables);
    command.current_dir(directory.path()).stderr(Stdio::piped());
    let mut run = Program::start(&mut command);
    let mut log = run.log.take().unwrap();
    run.output.after("serving on ").await;
    run.signal("TERM").await;
    let mut printed = String::new();
    while let Some(line) = log.next().await {
        printed += &line;
    }
    assert!(run.ended().await.success(), "{printed}");
    assert!(printed.contains("PGPASSFILE not used"), "{printed}");
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[tokio::test]
async fn no_secret_of_a_setting_is_printed() {
    let secret = [
        ("DATABASE_URL", "postgres://app:s3cret@h/d?sslmode=disable"),
        ("HUSHNET_AUTH", "jwt"),
        ("HUSHNET_JWT_ALGORITHM", "ES256"),
        ("HUSHNET_JWT_KEY", "s3cret"),
        (
            "HUSHNET_JWT_JWKS_URL",
            "http://me:s3cret@keys.example/set?token=s3cret",
        ),
        ("HUSHNET_TOKEN", "s3cret"),
        ("PGPASSWORD", "s3cret"),
    ];
    for arguments in [
        &["serve", "--help"][..],
        &["serve", "--print-config"],
        &["serve"],
        &["run", "--help"],
        &["migrate", "--help"],
        &["migrate", "up", "--help"],
        &["history", "--help"],
        &["demo", "--help"],
        &["tail", "--help"],
        &["token", "--help"],
        &["token", "--user", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"],
    ] {
        let (_, printed) = outcome(arguments, &secret).await;
        assert!(
            !printed.is_empty() && !printed.contains("s3cret"),
            "{arguments:?}: {printed}"
        );
    }
}

/// Neither where it is refused, nor where the keys are not there.
#[tokio::test]
async fn no_secret_of_the_keys_address_is_printed() {
    let database = [("DATABASE_URL", "postgres://h/d")];
    for (url, said) in [
        (
            "http://me:s3cret@keys.example/set?token=s3cret",
            "it must be https",
        ),
        ("me:s3cret@keys.example", "--jwt-jwks-url ***: "),
        ("s3cret", "--jwt-jwks-url ***: "),
    ] {
        let arguments = [
            "serve",
            "--auth=jwt",
            "--jwt-algorithm=ES256",
            "--jwt-jwks-url",
            url,
        ];
        let (code, printed) = outcome(&arguments, &database).await;
        assert_eq!(code, 2, "{printed}");
        assert!(
            printed.contains(said) && !printed.contains("s3cret"),
            "{printed}"
        );
    }
    let url = "http://me:s3cret@127.0.0.1:1/set?token=s3cret";
    let mut command = command(&["serve", "--listen=127.0.0.1:0", "--auth=jwt"], &database);
    command.args(["--jwt-algorithm=ES256", "--jwt-jwks-url", url]);
    command.stderr(Stdio::piped());
    let mut serve = Program::start(&mut command);
    let mut log = serve.log.take().unwrap();
    loop {
        let line = log.line().await;
        assert!(!line.contains("s3cret"), "{line}");
        if line.contains("jwks_not_fetched") {
            break;
        }
    }
    serve.kill().await;
}
