//! TLS of the server: rustls, with a certificate that may be replaced while it runs. The files are looked at now and
//! then; where they changed and fit together, new connections get the new certificate, else the old one stays and
//! somebody is told.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsFiles;
use crate::error::{self, ErrorKind, Result, ResultExt};
use crate::event::Event;
use crate::runtime::Runtime;

/// The certificate in force, and where newer ones come from.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: TlsFiles,
    current: RwLock<Arc<CertifiedKey>>,
    seen: Mutex<Stamps>,
}

/// When both files were changed last, as far as that is known.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Config where they cannot be read or do not fit together.
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>> {
        let seen = stamps(files);
        let current = RwLock::new(Arc::new(read(files)?));
        Ok(Arc::new(Self { files: files.clone(), current, seen: Mutex::new(seen) }))
    }

    /// Reads them again where they changed.
    pub(crate) fn refresh(&self, runtime: &Runtime) {
        let now = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.files) {
            Ok(key) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                runtime
                    .emit(Event::Note(format!("serving the new certificate in {}", self.files.certificate.display())));
            }
            Err(e) => runtime.emit(Event::Warning(format!("{e}; the certificate before stays in force"))),
        }
    }

    /// What the server speaks.
    pub(crate) fn server_config(self: &Arc<Self>) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("aws-lc-rs supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn stamps(files: &TlsFiles) -> Stamps {
    let stamp =
        |path: &Path| std::fs::metadata(path).ok().and_then(|about| Some((about.modified().ok()?, about.len())));
    [stamp(&files.certificate), stamp(&files.key)]
}

fn read(files: &TlsFiles) -> Result<CertifiedKey> {
    let wrong = |path: &Path| format!("cannot read {}", path.display());
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .or_err(ErrorKind::Config, || wrong(&files.certificate))?;
    if chain.is_empty() {
        return Err(error::config(format!("{} holds no certificate", files.certificate.display())));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).or_err(ErrorKind::Config, || wrong(&files.key))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).or_err(ErrorKind::Config, || {
        format!("{} and {} do not go together", files.certificate.display(), files.key.display())
    })
}
