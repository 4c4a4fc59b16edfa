//! The parameters of a URL and libpq's variables, joined to what a connection is made with.
//!
//! A parameter of the URL wins over the variable, as with psql. Pure but for the password file and the look at where a
//! socket and root certificates are. The library that connects reads some of the variables by itself, and skips what
//! it cannot read; so everything is set here, and what cannot be read is refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hushnet_replication::{Endpoint, Tls, TlsMode};
use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::parameters::{PARAMETERS, Parameter, Treatment};
use super::password_file::{self, Login};

/// The name of the service's sessions in `pg_stat_activity`.
const APPLICATION_NAME: &str = "hushnet-realtime";
const PORT: u16 = 5432;
/// Where PostgreSQL's socket is, if nobody names a host; else it is `localhost`.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];
const LOCALHOST: &str = "localhost";
/// The longest message that is taken of a stream: a row of the log has at most an event of 1 MiB, or the body of one that was
/// written before there was such a bound.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// The value of `sslrootcert` for the authorities that are built in.
const SYSTEM: &str = "system";

/// Reads a variable.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Something that was given and is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotUsed {
    /// The parameter, the variable or the file.
    pub what: String,
    /// Why not.
    pub why: String,
}

/// How to connect.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) options: PgConnectOptions,
    /// The same for replication.
    pub(super) endpoint: Endpoint,
    /// The variables that are used.
    pub(super) variables: Vec<&'static str>,
    /// Where the password comes from.
    pub(super) password_of: Option<String>,
    pub(super) not_used: Vec<NotUsed>,
}

/// Where a value stands.
#[derive(Debug, Clone, Copy)]
enum Place {
    Url,
    Variable(&'static str),
}

/// The values by their parameter.
struct Values {
    values: BTreeMap<&'static str, (String, Place)>,
    not_used: Vec<NotUsed>,
}

/// Joins them.
///
/// # Errors
/// What is wrong, without any value.
pub(super) fn join(
    of_url: Vec<(&'static Parameter, String)>,
    session: &[(String, String)],
    variables: Variables<'_>,
) -> Result<Address, String> {
    let mut values = Values::of(of_url, variables)?;
    let options = session_options(&values, session)?;
    let (host, port) = (
        values.host()?,
        values.number("port", "a port")?.unwrap_or(PORT),
    );
    let socket = match &host {
        Some(host) => host.starts_with('/').then(|| PathBuf::from(host)),
        None => socket(port),
    };
    let mut options = match &socket {
        Some(directory) => options.socket(directory).host(LOCALHOST),
        None => options.host(host.as_deref().unwrap_or(LOCALHOST)),
    }
    .port(port)
    .application_name(values.text("application_name").unwrap_or(APPLICATION_NAME));
    if let Some(capacity) = values.number("statement-cache-capacity", "a number")? {
        options = options.statement_cache_capacity(capacity);
    }
    if let Some(user) = values.text("user") {
        options = options.username(user);
    }
    if let Some(database) = values.text("dbname") {
        options = options.database(database);
    }
    let (options, tls) = values.with_tls(options, socket.is_some(), variables)?;
    let (password, password_of) = values.password(&options, variables);
    let endpoint = Endpoint {
        host: options.get_host().to_owned(),
        port,
        socket,
        user: options.get_username().to_owned(),
        password: password.clone().unwrap_or_default(),
        database: options
            .get_database()
            .unwrap_or(options.get_username())
            .to_owned(),
        application_name: values
            .text("application_name")
            .unwrap_or(APPLICATION_NAME)
            .to_owned(),
        options: values.text("options").unwrap_or_default().to_owned(),
        tls,
        message_bytes_max: MESSAGE_BYTES_MAX,
    };
    let used = |parameter: &&Parameter| match values.values.get(parameter.name) {
        Some((_, Place::Variable(_))) => parameter.treatment == Treatment::Used,
        _ => false,
    };
    let variables = PARAMETERS.iter().filter(used);
    Ok(Address {
        // Never none: the library would look for a password file, and log the lines that it cannot read.
        options: options.password(&password.unwrap_or_default()),
        endpoint,
        variables: variables.map(|parameter| parameter.variable).collect(),
        password_of,
        not_used: values.not_used,
    })
}

/// Options with what the session is to set, and nothing else of the URL. Only the parser of the library takes a text
/// of settings.
fn session_options(
    values: &Values,
    session: &[(String, String)],
) -> Result<PgConnectOptions, String> {
    let of_url = match values.values.get("options") {
        Some((text, Place::Url)) => Some(("options", text.as_str())),
        _ => None,
    };
    let parameters = std::iter::once(("password", "")).chain(of_url);
    let url = Url::parse_with_params("postgres://localhost/", parameters);
    let options = url.ok().and_then(|url| url.as_str().parse().ok());
    let options: PgConnectOptions =
        options.ok_or("options cannot be used: they must be as in -c name=value")?;
    // PgBouncer refuses `extra_float_digits` at the start of a session, and `options` even without any.
    let options = options.extra_float_digits(None);
    if session.is_empty() {
        return Ok(options);
    }
    let session = session.iter().map(|(name, value)| (name, value));
    Ok(options.options(session))
}

/// The directory of the first socket that is there.
fn socket(port: u16) -> Option<PathBuf> {
    let directories = SOCKET_DIRECTORIES.iter().map(PathBuf::from);
    directories
        .into_iter()
        .find(|directory| directory.join(format!(".s.PGSQL.{port}")).exists())
}

impl Values {
    fn of(
        of_url: Vec<(&'static Parameter, String)>,
        variables: Variables<'_>,
    ) -> Result<Self, String> {
        let mut all = Self {
            values: BTreeMap::new(),
            not_used: Vec::new(),
        };
        // The later one wins, as with libpq.
        for (parameter, value) in of_url {
            all.take(parameter, value, Place::Url)?;
        }
        for parameter in PARAMETERS {
            let name = parameter.variable;
            let Some(value) = (!name.is_empty()).then(|| variables(name)).flatten() else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| format!("{name} is not UTF-8"))?;
            if !value.is_empty() && !all.values.contains_key(parameter.name) {
                all.take(parameter, value, Place::Variable(name))?;
            }
        }
        Ok(all)
    }

    fn take(
        &mut self,
        parameter: &'static Parameter,
        value: String,
        place: Place,
    ) -> Result<(), String> {
        let name = place.name_of(parameter.name);
        match parameter.treatment {
            Treatment::Used => {}
            Treatment::NotUsed => {
                self.not_used.push(NotUsed {
                    what: name.to_owned(),
                    why: parameter.meaning.to_owned(),
                });
                return Ok(());
            }
            Treatment::OnlyAs(values) if values.contains(&value.as_str()) => {}
            Treatment::OnlyAs([]) => {
                return Err(format!("{name} cannot be used: {}", parameter.meaning));
            }
            Treatment::OnlyAs(values) => {
                let values = values.join(" or ");
                return Err(format!("{name} must be {values}: {}", parameter.meaning));
            }
        }
        self.values.insert(parameter.name, (value, place));
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// What its user calls the parameter.
    fn name_of(&self, name: &'static str) -> &'static str {
        let place = self.values.get(name).map(|(_, place)| place);
        place.map_or(name, |place| place.name_of(name))
    }

    fn number<T: std::str::FromStr>(
        &self,
        name: &'static str,
        what: &str,
    ) -> Result<Option<T>, String> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        if text.contains(',') {
            return Err(several_hosts(self.name_of(name)));
        }
        let number = text.trim().parse();
        number
            .map(Some)
            .map_err(|_| format!("{} is not {what}", self.name_of(name)))
    }

    /// The host to connect to, or the directory of its socket.
    fn host(&self) -> Result<Option<String>, String> {
        for name in ["host", "hostaddr"] {
            if self.text(name).is_some_and(|text| text.contains(',')) {
                return Err(several_hosts(self.name_of(name)));
            }
        }
        let Some(address) = self.text("hostaddr") else {
            return Ok(self.text("host").map(bare).map(str::to_owned));
        };
        let address = address.parse::<IpAddr>();
        let address =
            address.map_err(|_| format!("{} is not an IP address", self.name_of("hostaddr")))?;
        if self.text("host").is_some() && self.text("sslmode") == Some("verify-full") {
            return Err(format!(
                "{} cannot be used together with a host name and verify-full: the certificate would be held against \
                 the address",
                self.name_of("hostaddr")
            ));
        }
        Ok(Some(address.to_string()))
    }

    fn with_tls(
        &self,
        options: PgConnectOptions,
        is_socket: bool,
        variables: Variables<'_>,
    ) -> Result<(PgConnectOptions, Tls), String> {
        if is_socket {
            return Ok((options.ssl_mode(PgSslMode::Disable), Tls::default()));
        }
        let is_system = self.text("sslrootcert") == Some(SYSTEM);
        let mode = match self.text("sslmode") {
            None if is_system => PgSslMode::VerifyFull,
            None | Some("allow" | "prefer") => PgSslMode::Prefer,
            Some("disable") => PgSslMode::Disable,
            Some("require") => PgSslMode::Require,
            Some("verify-ca") => PgSslMode::VerifyCa,
            Some("verify-full") => PgSslMode::VerifyFull,
            Some(_) => {
                return Err(format!(
                    "{} must be disable, allow, prefer, require, verify-ca or verify-full",
                    self.name_of("sslmode")
                ));
            }
        };
        if is_system && !matches!(mode, PgSslMode::VerifyFull) {
            let name = self.name_of("sslrootcert");
            return Err(format!(
                "{name} system needs sslmode verify-full: anyone has a certificate of those authorities"
            ));
        }
        let root = match self.text("sslrootcert") {
            Some(SYSTEM) => None,
            Some(path) => Some(PathBuf::from(path)),
            None => home(variables)
                .map(|home| home.join(".postgresql/root.crt"))
                .filter(|path| path.exists()),
        };
        // As with libpq, `require` verifies what it can.
        let mode = match mode {
            PgSslMode::Require if root.is_some() => PgSslMode::VerifyCa,
            mode => mode,
        };
        let verifies = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
        let mut options = options.ssl_mode(mode);
        let mut tls = Tls {
            mode: tls_mode(mode),
            root_certificate: root.filter(|_| verifies),
            identity: None,
        };
        if let Some(root) = &tls.root_certificate {
            options = options.ssl_root_cert(readable(self.name_of("sslrootcert"), root)?);
        }
        match (self.text("sslcert"), self.text("sslkey")) {
            (None, None) => Ok((options, tls)),
            _ if matches!(mode, PgSslMode::Disable) => Ok((options, tls)),
            (Some(certificate), Some(key)) => {
                let certificate = readable(self.name_of("sslcert"), Path::new(certificate))?;
                let key = readable(self.name_of("sslkey"), Path::new(key))?;
                tls.identity = Some((certificate.to_owned(), key.to_owned()));
                let options = options.ssl_client_cert(certificate).ssl_client_key(key);
                Ok((options, tls))
            }
            _ => Err("sslcert and sslkey are only used together".to_owned()),
        }
    }

    /// The password, and where it comes from.
    fn password(
        &mut self,
        options: &PgConnectOptions,
        variables: Variables<'_>,
    ) -> (Option<String>, Option<String>) {
        if let Some((password, place)) = self.values.get("password") {
            let of = match place {
                Place::Url => "the URL",
                Place::Variable(name) => name,
            };
            return (Some(password.clone()), Some(of.to_owned()));
        }
        let named = self.text("passfile").map(PathBuf::from);
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| Some(home(variables)?.join(".pgpass"))) else {
            return (None, None);
        };
        let host = self.text("host").map(bare).or(self.text("hostaddr"));
        let user = options.get_username();
        let login = Login {
            host: host
                .filter(|host| !SOCKET_DIRECTORIES.contains(host))
                .unwrap_or(LOCALHOST),
            port: options.get_port(),
            database: options.get_database().unwrap_or(user),
            user,
        };
        let found = password_file::look_up(&path, is_named, login);
        let what = format!("password file {}", path.display());
        if let Some(why) = found.not_used {
            let what = what.clone();
            self.not_used.push(NotUsed { what, why });
        }
        let of = found.password.is_some().then_some(what);
        (found.password, of)
    }
}

impl Place {
    fn name_of(self, parameter: &'static str) -> &'static str {
        match self {
            Self::Url => parameter,
            Self::Variable(name) => name,
        }
    }
}

fn tls_mode(mode: PgSslMode) -> TlsMode {
    match mode {
        PgSslMode::Disable | PgSslMode::Allow => TlsMode::Disable,
        PgSslMode::Prefer => TlsMode::Prefer,
        PgSslMode::Require => TlsMode::Require,
        PgSslMode::VerifyCa => TlsMode::VerifyCa,
        PgSslMode::VerifyFull => TlsMode::VerifyFull,
    }
}

/// An IPv6 address without the brackets that it has in a URL.
fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn home(variables: Variables<'_>) -> Option<PathBuf> {
    variables("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

fn readable<'a>(name: &str, path: &'a Path) -> Result<&'a Path, String> {
    match std::fs::File::open(path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!(
            "{name}: {} cannot be read: {error}",
            path.display()
        )),
    }
}

/// Why more than one host is refused.
pub(super) fn several_hosts(place: &str) -> String {
    format!(
        "{place} names several hosts, and the service connects to one: a cursor is good for one database, and of \
         several servers two could take writes; name the primary, by an address that follows it"
    )
}

impl fmt::Display for NotUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not used: {}", self.what, self.why)
    }
}
