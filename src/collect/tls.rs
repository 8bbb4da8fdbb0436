//! TLS to Postgres, as `sslmode` asks for it.
//!
//! The crypto provider is always named: two of them in one program make rustls panic when it has
//! to guess.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::conninfo::TlsMode;

/// Why no TLS can be offered.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// The file of `sslrootcert`.
    #[error("reading the certificates in {}: {source}", path.display())]
    Roots { path: PathBuf, source: rustls::pki_types::pem::Error },
    /// A file without a certificate.
    #[error("{} holds no certificate of an authority", .0.display())]
    NoRoots(PathBuf),
    /// The provider does not go with the protocol versions: a mistake in how we were built.
    #[error("preparing TLS: {0}")]
    Prepare(#[from] rustls::Error),
}

/// A connector for the mode. Reads certificates from disk: those of tomorrow may differ.
pub(super) fn connector(mode: &TlsMode) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions()?;
    let mut config = match mode {
        TlsMode::VerifyFull { roots } => {
            builder.with_root_certificates(root_store(roots.as_ref())?).with_no_client_auth()
        }
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn root_store(file: Option<&PathBuf>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = file {
        let wrong = |source| TlsError::Roots { path: path.clone(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(wrong)? {
            let certificate = certificate.map_err(wrong)?;
            store.add_parsable_certificates([certificate]);
        }
        return if store.is_empty() { Err(TlsError::NoRoots(path.clone())) } else { Ok(store) };
    }
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(store)
}

/// `sslmode=require` and `prefer`: encryption without knowing with whom, as libpq has it. The
/// handshake's signatures are checked all the same: channel binding of passwords relies on them.
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
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
