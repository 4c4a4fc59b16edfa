//! Whose certificates are trusted.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::{BusCause, BusError};

/// How the broker is verified where the connection is over TLS: always its certificate and the host's name in it. The
/// files are read for each connection, so that they can be renewed.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// A file in PEM with authorities beside those that are built in.
    pub root_certificate: Option<PathBuf>,
}

impl TlsSettings {
    pub(crate) async fn connector(&self) -> Result<TlsConnector, BusError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(self.roots().await?)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }

    async fn roots(&self) -> Result<RootCertStore, BusError> {
        let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        if let Some(file) = &self.root_certificate {
            for certificate in CertificateDer::pem_slice_iter(&read(file).await?) {
                roots.add(certificate.map_err(failed)?).map_err(failed)?;
            }
        }
        Ok(roots)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, BusError> {
    let read = tokio::fs::read(path).await;
    read.map_err(|error| failed(format!("{}: {error}", path.display())))
}

fn failed(error: impl fmt::Display) -> BusError {
    BusError::new(BusCause::Tls, error)
}
