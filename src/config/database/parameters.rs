//! The parameters that libpq knows, their variables, and what the service makes of each.
//!
//! `docs/operations.md` has a table that is made from this one.

/// What the service makes of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Treatment {
    /// It is used.
    Used,
    /// It changes nothing. The log says so when it is given.
    NotUsed,
    /// These values demand nothing that the service does not do. Every other one is refused.
    OnlyAs(&'static [&'static str]),
}

/// A parameter of a database's address.
#[derive(Debug, Clone, Copy)]
pub(in crate::config) struct Parameter {
    /// Its name in a URL; empty if only the variable is known.
    pub(in crate::config) name: &'static str,
    /// libpq's variable for it; empty if there is none.
    pub(in crate::config) variable: &'static str,
    pub(in crate::config) treatment: Treatment,
    /// What it does, or why it does nothing.
    pub(in crate::config) meaning: &'static str,
}

const fn used(name: &'static str, variable: &'static str, meaning: &'static str) -> Parameter {
    Parameter {
        name,
        variable,
        treatment: Treatment::Used,
        meaning,
    }
}

const fn not_used(name: &'static str, variable: &'static str, meaning: &'static str) -> Parameter {
    Parameter {
        name,
        variable,
        treatment: Treatment::NotUsed,
        meaning,
    }
}

const fn only_as(
    name: &'static str,
    variable: &'static str,
    values: &'static [&'static str],
    meaning: &'static str,
) -> Parameter {
    Parameter {
        name,
        variable,
        treatment: Treatment::OnlyAs(values),
        meaning,
    }
}

const OWN_TIMES: &str = "the service bounds each of its connections and statements by itself";
const OWN_SETTINGS: &str = "the service sets its sessions' settings by itself";
const NO_KERBEROS: &str = "the service does not speak GSSAPI";

/// Every parameter.
pub(in crate::config) const PARAMETERS: &[Parameter] = &[
    used(
        "host",
        "PGHOST",
        "name or address of the server, or the directory of its socket; one host",
    ),
    used(
        "hostaddr",
        "PGHOSTADDR",
        "the server's IP address, so that no name is looked up. Not together with a host name and `verify-full`",
    ),
    used("port", "PGPORT", "the server's port, 5432 by default"),
    used(
        "dbname",
        "PGDATABASE",
        "the database; without it that of the user's name",
    ),
    used(
        "user",
        "PGUSER",
        "the role; without it the operating system's user",
    ),
    used(
        "password",
        "PGPASSWORD",
        "the password; without it the password file is read",
    ),
    used(
        "passfile",
        "PGPASSFILE",
        "the password file, `~/.pgpass` by default",
    ),
    used(
        "application_name",
        "PGAPPNAME",
        "the name in `pg_stat_activity`, `hushnet-realtime` by default",
    ),
    used(
        "options",
        "PGOPTIONS",
        "settings of the session as in `-c name=value`. Those of a URL come after those of the variable; the service's own come last",
    ),
    used(
        "sslmode",
        "PGSSLMODE",
        "`disable`, `allow` (as `prefer`), `prefer` (the default), `require`, `verify-ca` or `verify-full`; over a socket there is no TLS",
    ),
    used(
        "sslrootcert",
        "PGSSLROOTCERT",
        "a file with the CA's certificates in PEM, or `system`; `~/.postgresql/root.crt` where there is one",
    ),
    used(
        "sslcert",
        "PGSSLCERT",
        "a file with the client's certificate in PEM",
    ),
    used(
        "sslkey",
        "PGSSLKEY",
        "a file with that certificate's key in PEM, not encrypted",
    ),
    used(
        "statement-cache-capacity",
        "",
        "prepared statements that a connection keeps, 100 by default",
    ),
    only_as(
        "target_session_attrs",
        "PGTARGETSESSIONATTRS",
        &["any", "read-write", "primary"],
        "the service serves from a primary alone",
    ),
    only_as(
        "channel_binding",
        "PGCHANNELBINDING",
        &["disable", "prefer"],
        "channels are not bound",
    ),
    only_as(
        "gssencmode",
        "PGGSSENCMODE",
        &["disable", "prefer"],
        NO_KERBEROS,
    ),
    only_as(
        "sslnegotiation",
        "PGSSLNEGOTIATION",
        &["postgres"],
        "TLS begins with PostgreSQL's own question",
    ),
    only_as(
        "sslcertmode",
        "PGSSLCERTMODE",
        &["allow"],
        "a client's certificate is sent where the server asks for it",
    ),
    only_as(
        "ssl_min_protocol_version",
        "PGSSLMINPROTOCOLVERSION",
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are spoken",
    ),
    only_as(
        "ssl_max_protocol_version",
        "PGSSLMAXPROTOCOLVERSION",
        &["TLSv1.3"],
        "TLS 1.2 and 1.3 are spoken",
    ),
    only_as(
        "requiressl",
        "PGREQUIRESSL",
        &["0"],
        "say `sslmode=require`",
    ),
    only_as(
        "load_balance_hosts",
        "PGLOADBALANCEHOSTS",
        &["disable"],
        "the service connects to one host",
    ),
    only_as(
        "replication",
        "",
        &["false", "off", "no", "0"],
        "the service needs no replication",
    ),
    only_as(
        "sslcrl",
        "PGSSLCRL",
        &[],
        "lists of revoked certificates are not read",
    ),
    only_as(
        "sslcrldir",
        "PGSSLCRLDIR",
        &[],
        "lists of revoked certificates are not read",
    ),
    only_as("sslpassword", "", &[], "an encrypted key is not read"),
    only_as(
        "sslkeylogfile",
        "",
        &[],
        "the keys of sessions are not written",
    ),
    only_as(
        "requirepeer",
        "PGREQUIREPEER",
        &[],
        "the server's user is not looked at",
    ),
    only_as(
        "require_auth",
        "PGREQUIREAUTH",
        &[],
        "the way of authentication cannot be restricted here; pg_hba.conf can",
    ),
    only_as(
        "service",
        "PGSERVICE",
        &[],
        "service files are not read; name the host, the database and the role",
    ),
    only_as("scram_client_key", "", &[], "only passwords are taken"),
    only_as("scram_server_key", "", &[], "only passwords are taken"),
    only_as("oauth_issuer", "", &[], "only passwords are taken"),
    only_as("oauth_client_id", "", &[], "only passwords are taken"),
    only_as("oauth_client_secret", "", &[], "only passwords are taken"),
    only_as("oauth_scope", "", &[], "only passwords are taken"),
    only_as(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        &["3.0"],
        "version 3.0 of the protocol is spoken",
    ),
    not_used(
        "max_protocol_version",
        "PGMAXPROTOCOLVERSION",
        "version 3.0 of the protocol is spoken",
    ),
    not_used("connect_timeout", "PGCONNECT_TIMEOUT", OWN_TIMES),
    not_used("tcp_user_timeout", "", OWN_TIMES),
    not_used("keepalives", "", OWN_TIMES),
    not_used("keepalives_idle", "", OWN_TIMES),
    not_used("keepalives_interval", "", OWN_TIMES),
    not_used("keepalives_count", "", OWN_TIMES),
    not_used(
        "fallback_application_name",
        "",
        "`application_name` is used",
    ),
    not_used("client_encoding", "PGCLIENTENCODING", OWN_SETTINGS),
    not_used("", "PGDATESTYLE", OWN_SETTINGS),
    not_used("", "PGTZ", OWN_SETTINGS),
    not_used("", "PGGEQO", OWN_SETTINGS),
    not_used(
        "sslcompression",
        "PGSSLCOMPRESSION",
        "TLS is not compressed",
    ),
    not_used("sslsni", "PGSSLSNI", "the server's name is always sent"),
    not_used("krbsrvname", "PGKRBSRVNAME", NO_KERBEROS),
    not_used("gsslib", "PGGSSLIB", NO_KERBEROS),
    not_used("gssdelegation", "PGGSSDELEGATION", NO_KERBEROS),
];

/// Other names that the library which connects takes.
const ALIASES: &[(&str, &str)] = &[
    ("ssl-mode", "sslmode"),
    ("ssl-root-cert", "sslrootcert"),
    ("ssl-ca", "sslrootcert"),
    ("ssl-cert", "sslcert"),
    ("ssl-key", "sslkey"),
];

/// The parameter of this name in a URL.
pub(super) fn named(name: &str) -> Option<&'static Parameter> {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    PARAMETERS
        .iter()
        .find(|parameter| !name.is_empty() && parameter.name == name)
}

/// Whether the value may be a secret.
pub(super) fn is_secret(parameter: &Parameter) -> bool {
    let name = parameter.name;
    name.contains("password") || name.contains("secret") || name.starts_with("scram_")
}

/// Whether this is a variable of libpq's.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    ["PGSERVICEFILE", "PGSYSCONFDIR"].contains(&name)
        || PARAMETERS
            .iter()
            .any(|parameter| !name.is_empty() && parameter.variable == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_in_the_table_once() {
        for (index, one) in PARAMETERS.iter().enumerate() {
            for other in &PARAMETERS[..index] {
                assert!(one.name != other.name || one.name.is_empty(), "{one:?}");
                let is_other = one.variable != other.variable || one.variable.is_empty();
                assert!(is_other, "{one:?}");
            }
        }
        for (alias, name) in ALIASES {
            assert_eq!(named(alias).unwrap().name, *name);
        }
        assert!(named("").is_none() && !is_variable(""));
    }
}
