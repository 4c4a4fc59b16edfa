//! TLS: the certificate and its key, and their replacement while the service runs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{ConfigError, EdgeSettings};

/// The certificate and key of new connections. Open connections keep those that they began with.
#[derive(Debug)]
pub struct Tls {
    certificate_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files that the settings name; `None` if they name none.
    ///
    /// # Errors
    /// [`ConfigError`] when only one is named, or when they hold no certificate and its key.
    pub fn new(settings: &EdgeSettings) -> Result<Option<Self>, ConfigError> {
        let (certificate_file, key_file) =
            match (&settings.tls_certificate_file, &settings.tls_key_file) {
                (None, None) => return Ok(None),
                (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
                _ => return Err(ConfigError::HalfTls),
            };
        let current = load(&certificate_file, &key_file)?;
        Ok(Some(Self {
            certificate_file,
            key_file,
            current: RwLock::new(Arc::new(current)),
        }))
    }

    /// The TLS handshake of the next connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current).into()
    }

    /// Reads the files again at each SIGHUP, for ever. Files that cannot be read change nothing.
    pub async fn reload_on_hangup(&self) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!(event = "hangup_not_heard", %error);
                return std::future::pending().await;
            }
        };
        while hangup.recv().await.is_some() {
            self.reload();
        }
    }

    fn reload(&self) {
        match load(&self.certificate_file, &self.key_file) {
            Ok(fresh) => {
                let fresh = Arc::new(fresh);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                tracing::info!(event = "certificate_reloaded");
            }
            Err(error) => tracing::error!(event = "certificate_not_reloaded", %error),
        }
    }
}

fn load(certificate_file: &Path, key_file: &Path) -> Result<ServerConfig, ConfigError> {
    let unusable = |path: &Path, cause: &dyn ToString| ConfigError::BadPem {
        path: path.to_owned(),
        cause: cause.to_string(),
    };
    let chain = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(certificate_file, &error))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable(key_file, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(certificate_file, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
