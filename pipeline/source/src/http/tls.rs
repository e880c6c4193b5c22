//! The server's certificate from PEM files, read again when they change: a renewed certificate needs no restart.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::{info, warn};

use crate::SourceError;

/// PEM: the certificate with its chain, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Are they there, readable and a pair?
    pub fn check(&self) -> Result<(), SourceError> {
        self.load(&ring::default_provider()).map(drop)
    }

    fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, SourceError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&self.cert)?).collect();
        let chain = chain.map_err(|error| invalid(&self.cert, "a PEM certificate", &error))?;
        if chain.is_empty() {
            return Err(invalid(&self.cert, "a PEM certificate", &"there is none in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?);
        let key = key.map_err(|error| invalid(&self.key, "an unencrypted PEM private key", &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => SourceError::Invalid(format!(
                "the key {} does not belong to the certificate {}\nhint: was one of them renewed without the other?",
                self.key.display(),
                self.cert.display()
            )),
            other => invalid(&self.cert, "a certificate that can be used", &other),
        })
    }

    /// Changes when one of the files does.
    fn stamp(&self) -> [Option<(SystemTime, u64)>; 2] {
        [&self.cert, &self.key].map(|path| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    std::fs::read(path).map_err(|error| {
        SourceError::Invalid(format!(
            "cannot read {}: {error}\nhint: `tls` of the receivers names a certificate and its key, both PEM",
            path.display()
        ))
    })
}

fn invalid(path: &Path, what: &str, error: &dyn fmt::Display) -> SourceError {
    SourceError::Invalid(format!("{} is not {what}: {error}\nhint: it must be PEM", path.display()))
}

/// What handshakes are answered with at the moment.
pub(super) struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    stamp: Mutex<[Option<(SystemTime, u64)>; 2]>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {}", self.files.cert.display())
    }
}

impl Certificate {
    pub fn load(files: &TlsFiles) -> Result<Arc<Certificate>, SourceError> {
        let provider = Arc::new(ring::default_provider());
        // Before the content: a change in between is then seen as one.
        let stamp = files.stamp();
        let current = Arc::new(files.load(&provider)?);
        let (current, stamp) = (RwLock::new(current), Mutex::new(stamp));
        Ok(Arc::new(Certificate { files: files.clone(), provider, current, stamp }))
    }

    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, SourceError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| SourceError::Invalid(format!("tls: {error}")))?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Takes over files that changed; keeps what it has while they are not a pair (the other one may be on its way).
    pub fn reload(&self) {
        let stamp = self.files.stamp();
        if stamp == *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) {
            return;
        }
        match self.files.load(&self.provider) {
            Ok(loaded) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
                info!(cert = %self.files.cert.display(), "took over the new certificate");
            }
            Err(error) => warn!("the old certificate stays in use: {error}"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
