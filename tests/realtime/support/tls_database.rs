//! A PostgreSQL that is reached over TCP with TLS and a password, with an authority of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use hushnet_devdb::Cluster;
use hushnet_testkit::application;
use hushnet_testkit::database::{self, UNSAFE_SETTINGS, connect, execute};
use hushnet_testkit::wait::until;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sqlx::Connection;

/// The only name in the server's certificate; the server listens on 127.0.0.1.
const HOST: &str = "localhost";
/// The role that may log in over TLS, with this password.
pub const ROLE: &str = "app";
pub const PASSWORD: &str = "s3cret:pass\\word";

/// The cluster, and what its clients need.
pub struct TlsDatabase {
    _cluster: Cluster,
    directory: tempfile::TempDir,
    /// Of the superuser, over the socket.
    inner: String,
    pub port: u16,
}

impl TlsDatabase {
    /// With HushNet's tables, in the database `hushnet`.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let home = directory.path().join("postgresql");
        fs::create_dir(&home).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port.to_string()),
            ("wal_level", "logical"),
        ];
        let settings = [&UNSAFE_SETTINGS[..], &own].concat();
        let cluster = Cluster::start_with(&home, &settings).await.unwrap();
        let mut admin = connect(&Cluster::locate(&home, "postgres").unwrap()).await;
        execute(&mut admin, "CREATE DATABASE hushnet").await;
        admin.close().await.unwrap();
        let started = Self {
            _cluster: cluster,
            inner: Cluster::locate(&home, "hushnet").unwrap(),
            directory,
            port,
        };
        let mut connection = connect(&started.inner).await;
        application::create_schema(&mut connection).await;
        let role = format!("CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
        execute(&mut connection, &role).await;
        started.make_certificates();
        let data = home.join("data");
        let rules = fs::read_to_string(data.join("pg_hba.conf")).unwrap();
        let tcp = format!("host all {ROLE} 127.0.0.1/32 scram-sha-256\n");
        // The first rule that matches counts.
        fs::write(data.join("pg_hba.conf"), tcp + &rules).unwrap();
        started.serve_tls(true).await;
        started
    }

    /// The authority's and another authority's certificate, and the server's in the data directory.
    fn make_certificates(&self) {
        let (authority, other) = (authority(), authority());
        fs::write(self.root(), &authority.1).unwrap();
        fs::write(self.other_root(), &other.1).unwrap();
        let key = KeyPair::generate().unwrap();
        let of_server = CertificateParams::new([HOST.to_owned()]).unwrap();
        let of_server = of_server.signed_by(&key, &authority.0).unwrap();
        let data = self.path("postgresql/data");
        self.give(&data.join("server.crt"), &of_server.pem());
        self.give(&data.join("server.key"), &key.serialize_pem());
    }

    /// Writes a file of the server's user.
    fn give(&self, path: &Path, text: &str) {
        let owner = fs::metadata(self.path("postgresql/data")).unwrap();
        fs::write(path, text).unwrap();
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Whether the server has TLS from now on.
    pub async fn serve_tls(&self, is_on: bool) {
        let mut connection = connect(&self.inner).await;
        let value = if is_on { "on" } else { "off" };
        execute(&mut connection, &format!("ALTER SYSTEM SET ssl = {value}")).await;
        execute(&mut connection, "SELECT pg_reload_conf()").await;
        until("the server has read its settings", async || {
            // A new session has the postmaster's settings.
            let mut connection = connect(&self.inner).await;
            let now = sqlx::query_scalar("SHOW ssl").fetch_one(&mut connection);
            let now: String = now.await.unwrap();
            now == value
        })
        .await;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The file with the authority's certificate.
    pub fn root(&self) -> PathBuf {
        self.path("root.pem")
    }

    /// That of an authority which the server's certificate is not of.
    pub fn other_root(&self) -> PathBuf {
        self.path("other.pem")
    }

    /// The database over TCP, at this host and with these parameters, as the role with its password.
    pub fn url(&self, host: &str, parameters: &str) -> String {
        let password = PASSWORD.replace(':', "%3A").replace('\\', "%5C");
        let port = self.port;
        format!("postgres://{ROLE}:{password}@{host}:{port}/hushnet?{parameters}")
    }

    /// A session of the superuser, over the socket.
    pub async fn connect(&self) -> sqlx::PgConnection {
        database::connect(&self.inner).await
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), certificate.pem())
}
