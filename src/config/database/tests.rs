//! A database's address: what is taken, what is refused, and what is never shown.

use std::ffi::OsString;

use sqlx::postgres::PgSslMode;

use super::DatabaseUrl;

/// What becomes of a URL and these variables.
fn with(url: &str, variables: &[(&str, &str)]) -> Result<DatabaseUrl, String> {
    DatabaseUrl::with(url, &|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn a_password_is_never_shown() {
    for (url, masked) in [
        (
            "postgres://app:s3cret@db:5432/hushnet",
            "postgres://app:***@db:5432/hushnet",
        ),
        (
            "postgres://app:a@b@db/hushnet",
            "postgres://app:***@db/hushnet",
        ),
        (
            "postgres://db/hushnet?password=s3cret&sslmode=disable",
            "postgres://db/hushnet?password=***&sslmode=disable",
        ),
        (
            "postgres://db/hushnet?p%61ssword=s3cret",
            "postgres://db/hushnet?***",
        ),
        ("postgres://app@db/hushnet", "postgres://app@db/hushnet"),
    ] {
        assert_eq!(url.parse::<DatabaseUrl>().unwrap().masked(), masked);
        assert_eq!(format!("{:?}", url.parse::<DatabaseUrl>().unwrap()), masked);
    }
}

#[test]
fn what_is_wrong_with_an_address_is_said_without_it() {
    for text in [
        "postgres://app:s3cret/x9z@db/hushnet",
        "postgres://app:s3cret?x9z@db/hushnet",
        "postgres://app:s3cret#x9z@db/hushnet",
        "postgres://app:s3cret,x9z/w@db/hushnet",
        // What stands before the sign is a port.
        "postgres://app:12/x9z@db/hushnet",
        "postgres://app:12?x9z@db/hushnet",
        "postgres://app:12?x9z=w&v@db/hushnet",
        "postgres://app:12?host=x9z@db/hushnet",
        "postgres://db/hushnet?password=x9z@12",
        "postgres://app:12#x9z@db/hushnet",
        "postgres://app:12/x9z/hushnet",
        "postgres://db/hushnet?sslmode=s3cret",
        "postgres://db/hushnet?hostaddr=s3cret",
        "postgres://db/hushnet?port=s3cret",
        "postgres://db/hushnet?passwort=s3cret",
        "postgres://db/hushnet?s3cret",
        "postgres://db/hushnet?xnine",
        "postgres://db/hushnet?channel_binding=s3cret",
        "postgres://db/hushnet?sslpassword=s3cret",
        "postgres://s3cret%FF:x9z@db/hushnet",
        "mysql://app:s3cret@db/hushnet",
        "s3cret",
    ] {
        let fault = text.parse::<DatabaseUrl>().unwrap_err();
        assert!(
            !fault.contains("s3cret") && !fault.contains("x9z") && !fault.contains("xnine"),
            "{fault}"
        );
        assert!(!fault.contains("12"), "{fault}");
    }
}

#[test]
fn an_unknown_parameter_is_refused_by_its_name() {
    for (parameter, said) in [
        ("passwort=x", "unknown parameter passwort;"),
        ("ssl=false", "ssl must be true;"),
        ("service=x", "service cannot be used: service files"),
        (
            "channel_binding=require",
            "channel_binding must be disable or prefer",
        ),
        (
            "target_session_attrs=standby",
            "target_session_attrs must be any or ",
        ),
        ("sslmode=sometimes", "sslmode must be disable, allow, "),
        ("sslcert=/c", "sslcert and sslkey are only used together"),
        (
            "sslmode=verify-full&sslrootcert=/nowhere",
            "/nowhere cannot be read",
        ),
        (
            "sslmode=require&sslrootcert=system",
            "needs sslmode verify-full",
        ),
        (
            "hostaddr=127.0.0.1&sslmode=verify-full",
            "hostaddr cannot be used together with a host name",
        ),
    ] {
        let fault = with(&format!("postgres://db/hushnet?{parameter}"), &[]).unwrap_err();
        assert!(fault.contains(said), "{parameter}: {fault}");
    }
    for (parameter, not_used) in [
        ("connect_timeout=10", Some("connect_timeout")),
        ("keepalives_idle=30", Some("keepalives_idle")),
        ("target_session_attrs=read-write", None),
        ("application_name=x&options=-c%20a.b=1", None),
        ("ssl=true", None),
    ] {
        let url = with(&format!("postgres://db/hushnet?{parameter}"), &[]).unwrap();
        let said = url.not_used().iter().map(|one| one.what.as_str());
        assert_eq!(
            said.collect::<Vec<_>>(),
            Vec::from_iter(not_used),
            "{parameter}"
        );
    }
}

#[test]
fn several_hosts_are_refused_with_the_reason() {
    for (url, variables) in [
        ("postgres://a,b/hushnet", &[][..]),
        ("postgres://app:x@a:5432,b:5433/hushnet", &[]),
        ("postgres://app@a,b", &[]),
        ("postgres:///hushnet?host=a,b", &[]),
        ("postgres:///hushnet?host=a&port=1,2", &[]),
        ("postgres:///hushnet?hostaddr=127.0.0.1,127.0.0.2", &[]),
        ("postgres:///hushnet", &[("PGHOST", "a,b")]),
        ("postgres:///hushnet", &[("PGHOSTADDR", "127.0.0.1,::1")]),
        ("postgres://db/hushnet", &[("PGPORT", "1,2")]),
    ] {
        let fault = with(url, variables).unwrap_err();
        assert!(fault.contains("names several hosts"), "{url}: {fault}");
    }
    with("postgres://app:a,b@db/hushnet", &[]).unwrap();
}

#[test]
fn variables_fill_what_the_url_leaves_open() {
    let variables = [
        ("PGHOST", "db.example"),
        ("PGPORT", "5433"),
        ("PGUSER", "app"),
        ("PGPASSWORD", "s3cret"),
        ("PGDATABASE", "hushnet"),
        ("PGSSLMODE", "disable"),
        ("PGAPPNAME", "chat"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGCLIENTENCODING", ""),
    ];
    let url = with("postgres://", &variables).unwrap();
    let shown = "postgres://app@db.example:5433/hushnet?sslmode=disable";
    assert_eq!(
        (url.masked().as_str(), url.password_of()),
        (shown, Some("PGPASSWORD"))
    );
    let used = "PGHOST PGPORT PGDATABASE PGUSER PGPASSWORD PGAPPNAME PGSSLMODE";
    assert_eq!(url.variables().join(" "), used);
    assert_eq!(url.options().get_application_name(), Some("chat"));
    let not_used = url.not_used().iter().map(|one| one.what.as_str());
    assert_eq!(not_used.collect::<Vec<_>>(), ["PGCONNECT_TIMEOUT"]);

    let url = with("postgres://me:own@[::1]:1/mine?sslmode=require", &variables).unwrap();
    let shown = "postgres://me@[::1]:1/mine?sslmode=require";
    assert_eq!(
        (url.effective().as_str(), url.password_of()),
        (shown, Some("the URL"))
    );
    assert_eq!(url.variables(), ["PGAPPNAME"]);
    let url = with("postgres:///hushnet?host=/run/a", &variables).unwrap();
    let shown = "postgres://app@localhost:5433/hushnet?host=%2Frun%2Fa";
    assert_eq!(url.effective(), shown);
    assert!(matches!(url.options().get_ssl_mode(), PgSslMode::Disable));
}

#[test]
fn a_variable_that_cannot_be_used_is_named_without_its_value() {
    for (variable, value) in [
        ("PGPORT", "s3cret"),
        ("PGSSLMODE", "s3cret"),
        ("PGHOSTADDR", "s3cret"),
        ("PGSERVICE", "s3cret"),
        ("PGREQUIREAUTH", "s3cret"),
    ] {
        let fault = with("postgres://db.example/hushnet", &[(variable, value)]).unwrap_err();
        assert!(
            fault.contains(variable) && !fault.contains(value),
            "{fault}"
        );
    }
}

#[test]
fn sslmode_means_what_it_means_to_psql() {
    use PgSslMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root.pem");
    std::fs::write(&root, "").unwrap();
    let root = format!("sslrootcert={}", root.display());
    let is =
        |mode: PgSslMode, wanted| std::mem::discriminant(&mode) == std::mem::discriminant(&wanted);
    for (parameters, wanted) in [
        ("", Prefer),
        ("sslmode=disable", Disable),
        ("sslmode=allow", Prefer),
        ("sslmode=require", Require),
        (&format!("sslmode=require&{root}"), VerifyCa),
        (&format!("sslmode=verify-ca&{root}"), VerifyCa),
        (&format!("sslmode=verify-full&{root}"), VerifyFull),
        ("sslmode=verify-full", VerifyFull),
        ("sslrootcert=system", VerifyFull),
        ("sslmode=verify-full&host=/run", Disable),
    ] {
        let url = with(&format!("postgres://db/hushnet?{parameters}"), &[]).unwrap();
        let mode = url.options().get_ssl_mode();
        assert!(is(mode, wanted), "{parameters}: {mode:?}");
    }
}

#[test]
fn the_password_file_is_that_of_psql() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "db:5432:hushnet:app:of home\n").unwrap();
    let other = home.path().join("other");
    std::fs::write(&other, "localhost:5432:*:app:of other\n").unwrap();
    let others = std::fs::Permissions::from_mode(0o644);
    let owner = || std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&file, owner()).unwrap();
    std::fs::set_permissions(&other, owner()).unwrap();
    let (home, named) = (home.path().to_str().unwrap(), other.to_str().unwrap());
    let variables = [("HOME", home)];
    let found = with("postgres://app@db/hushnet", &variables).unwrap();
    let of = format!("password file {home}/.pgpass");
    assert_eq!(found.password_of(), Some(of.as_str()));
    assert!(format!("{:?}", found.options()).contains("of home"));
    assert_eq!(
        with("postgres://app@db/other", &variables)
            .unwrap()
            .password_of(),
        None
    );
    let variables = [("HOME", home), ("PGPASSFILE", named)];
    assert_eq!(
        with("postgres://app@db/hushnet", &variables)
            .unwrap()
            .password_of(),
        None
    );
    let url = "postgres://app@x/hushnet?host=/var/run/postgresql";
    let found = with(url, &variables).unwrap();
    assert!(format!("{:?}", found.options()).contains("of other"));
    std::fs::set_permissions(&other, others).unwrap();
    let refused = with(url, &variables).unwrap();
    assert_eq!(refused.password_of(), None);
    assert!(refused.not_used()[0].to_string().contains("chmod 600"));
}

#[test]
fn the_library_gets_every_value() {
    let url = "postgres://db:1/hushnet?password=pa%26ss&sslmode=disable&options=-c%20c.d%3D1&options[a]=b";
    let options = with(url, &[]).unwrap().options();
    assert_eq!(options.get_host(), "db");
    assert_eq!(options.get_options(), Some("-c c.d=1 -c a=b"));
    // A pooler may refuse them, even if they are empty.
    let without = with("postgres://db/h", &[]).unwrap().options();
    assert_eq!(without.get_options(), None);
    let ssl_mode = options.get_ssl_mode();
    assert!(matches!(ssl_mode, PgSslMode::Disable), "{ssl_mode:?}");
    assert!(format!("{options:?}").contains("pa&ss"));
    let url = "postgres://a%40b:c%2Fd+e@db/h%20n";
    let options = with(url, &[]).unwrap().options();
    assert_eq!(options.get_username(), "a@b");
    assert_eq!(options.get_database(), Some("h n"));
    assert!(format!("{options:?}").contains("c/d+e"));
}
