//! TLS for PostgreSQL sessions: rustls with aws-lc-rs, and the channel binding that ties a SCRAM
//! login to the server's certificate.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::error::{self, ErrorKind, Result, ResultExt};

/// Whom a TLS session trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TlsTrust {
    /// Encrypt, verify nothing, as libpq does for `sslmode=prefer` and `require` without a root
    /// certificate. A SCRAM login is still bound to the certificate that was seen.
    #[default]
    Unverified,
    /// Verify the certificate and the host name with the host's root certificates (`verify-full`).
    SystemRoots,
    /// Verify the certificate and the host name with the roots of a PEM file (`verify-full`).
    RootFile(PathBuf),
}

/// The rustls configuration for one kind of trust.
pub(crate) fn client_config(trust: &TlsTrust) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs supports TLS 1.2 and 1.3");
    let mut config = match trust {
        TlsTrust::Unverified => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
        TlsTrust::SystemRoots => {
            let found = rustls_native_certs::load_native_certs();
            builder
                .with_root_certificates(roots(found.certs, "this host has no root certificates")?)
                .with_no_client_auth()
        }
        TlsTrust::RootFile(path) => {
            let wrong = || format!("cannot read the root certificates in {}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
                .or_err(ErrorKind::Config, wrong)?;
            let none = format!("{} holds no root certificate", path.display());
            builder.with_root_certificates(roots(certificates, &none)?).with_no_client_auth()
        }
    };
    // Needed by sslnegotiation=direct (17 and later), ignored by everything else.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

fn roots(certificates: Vec<CertificateDer<'static>>, none: &str) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match store.add_parsable_certificates(certificates) {
        (0, _) => Err(error::config(none).hint("give a PEM file with the certificate authority of PostgreSQL")),
        _ => Ok(store),
    }
}

/// Accepts any certificate, but makes the peer prove that it holds the key: without that proof,
/// channel binding would bind to a certificate that anybody can copy.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` (RFC 5929): the certificate, hashed with the hash of its own signature
/// (SHA-256 where that is weaker). `None` where that names no hash (Ed25519, RSA-PSS): such a
/// session logs in without channel binding.
pub(super) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];
    let oid = signature_algorithm(certificate)?;
    let (family, rest) = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some(rest), _) => ("rsa", rest),
        (_, Some(rest)) => ("ecdsa", rest),
        _ => return None,
    };
    match (family, rest) {
        ("rsa", [4 | 5 | 11]) | ("ecdsa", [1] | [3, 2]) => Some(Sha256::digest(certificate).to_vec()),
        ("rsa", [12]) | ("ecdsa", [3, 3]) => Some(Sha384::digest(certificate).to_vec()),
        ("rsa", [13]) | ("ecdsa", [3, 4]) => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, … }, … }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = der_value(certificate, 0x30)?;
    let (_, after_tbs) = der_value(certificate, 0x30)?;
    let (algorithm, _) = der_value(after_tbs, 0x30)?;
    Some(der_value(algorithm, 0x06)?.0)
}

/// The content of one DER element with this tag, and what follows it.
fn der_value(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = input.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7F => (usize::from(length), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outline: a long tbsCertificate, then the algorithm.
    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut inner = vec![0x30, 0x82, 0x01, 0x00];
        inner.resize(4 + 256, 0);
        inner.extend([0x30, oid.len() as u8 + 2, 0x06, oid.len() as u8]);
        inner.extend(oid);
        let mut outer = vec![0x30, 0x82, (inner.len() >> 8) as u8, inner.len() as u8];
        outer.extend(inner);
        outer
    }

    #[test]
    fn the_hash_follows_the_signature_of_the_certificate() {
        let cases: [(&[u8], Option<usize>); 4] = [
            (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B], Some(32)),
            (&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03], Some(48)),
            (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D], Some(64)),
            (&[0x2B, 0x65, 0x70], None),
        ];
        for (oid, length) in cases {
            assert_eq!(server_end_point(&certificate(oid)).map(|hash| hash.len()), length, "{oid:x?}");
        }
    }

    #[test]
    fn garbage_is_no_certificate() {
        let whole = certificate(&[0x2B, 0x65, 0x70]);
        for cut in 0..whole.len() {
            assert_eq!(server_end_point(&whole[..cut]), None);
        }
    }

    #[test]
    fn a_root_file_without_roots_is_refused() {
        let empty = tempfile::NamedTempFile::new().expect("temp file");
        let error = client_config(&TlsTrust::RootFile(empty.path().into())).expect_err("no roots");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(client_config(&TlsTrust::RootFile("/nowhere".into())).is_err());
    }
}
