//! TLS to Postgres, as `sslmode` asks for it; called by the login, which reads the files anew each
//! time. And TLS to the web servers of applications.
//!
//! Chains are checked by rustls' stock verifier and by nothing else; what it refuses and libpq does
//! not is told by `sentence`. The crypto provider is always named: two of them in one program make
//! rustls panic when it has to guess.

mod files;
mod sentence;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};
use rustls::{ConfigBuilder, SignatureScheme, WantsVerifier};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::files::Authorities;
pub(super) use self::sentence::{about, is_tls};
use super::conninfo::{SslMode, TlsSettings};

/// Why no TLS can be offered.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// A file of certificates.
    #[error("reading the certificates in {}: {source}", path.display())]
    Certificates { path: PathBuf, source: rustls::pki_types::pem::Error },
    /// A file without one.
    #[error("{} holds no certificate", .0.display())]
    NoCertificate(PathBuf),
    /// What `verify-ca` needs.
    #[error(
        "sslmode={mode} needs the certificate of an authority, and there is no {} \
         (set sslrootcert)", path.display()
    )]
    NoAuthority { mode: &'static str, path: PathBuf },
    /// Our own private key.
    #[error("the private key {} {why}", path.display())]
    Key { path: PathBuf, why: String },
    /// Our own certificate does not do.
    #[error("the certificate {} cannot be used: {why}", path.display())]
    Own { path: PathBuf, why: String },
    /// The provider does not go with the protocol versions: a mistake in how we were built.
    #[error("preparing TLS: {0}")]
    Prepare(#[from] rustls::Error),
}

/// TLS that is ready, and what there is to say if the server's certificate is not accepted.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) make: MakeRustlsConnect,
    /// Whose certificates are accepted, in words.
    pub(super) authorities: String,
    pub(super) checked: Checked,
}

/// How much of a server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// None of it: the server may be anybody.
    Nothing,
    /// It is of an authority that is known. The name is not looked at, and need not be one.
    Authority,
    /// … and for this host.
    AuthorityAndName,
}

/// Prepares TLS; none for `disable`. Reads certificates from disk: those of tomorrow may differ.
pub(super) fn prepare(settings: &TlsSettings) -> Result<Option<Tls>, TlsError> {
    let accepted = match settings.mode {
        SslMode::Disable => return Ok(None),
        SslMode::Allow | SslMode::Prefer => Authorities::Any,
        SslMode::Require => files::authorities_if_any(&settings.roots)?,
        SslMode::VerifyCa => files::authorities(&settings.roots, "verify-ca")?,
        SslMode::VerifyFull => files::authorities_or_system(&settings.roots)?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions()?;
    let (verifier, authorities, checked): (Arc<dyn ServerCertVerifier>, _, _) = match accepted {
        Authorities::Any => (Arc::new(AnyCertificate(provider)), String::new(), Checked::Nothing),
        Authorities::These(store, said) => {
            let stock = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider);
            let stock = stock.build().map_err(|error| rustls::Error::General(error.to_string()))?;
            if settings.mode == SslMode::VerifyFull {
                (stock, said, Checked::AuthorityAndName)
            } else {
                (Arc::new(AnyName(stock)), said, Checked::Authority)
            }
        }
    };
    let make = connector(builder, verifier, settings)?;
    Ok(Some(Tls { make, authorities, checked }))
}

/// TLS to web servers that show certificates for their names: of the authorities in a file and its
/// text, or of those that this machine trusts.
pub(super) fn for_web(authorities: Option<(&Path, &[u8])>) -> Result<ClientConfig, TlsError> {
    let accepted = match authorities {
        Some((path, text)) => files::from_pem(path, text)?,
        None => files::from_system(),
    };
    let roots = match accepted {
        Authorities::These(roots, _) => roots,
        Authorities::Any => RootCertStore::empty(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn connector(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    verifier: Arc<dyn ServerCertVerifier>,
    settings: &TlsSettings,
) -> Result<MakeRustlsConnect, TlsError> {
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let own = settings.own.as_ref().map(files::own).transpose()?.flatten();
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| TlsError::Own { path, why: sentence::about_own(&error) })?,
    };
    // `sslnegotiation=direct` is refused without it.
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

/// `sslmode=verify-ca`: the chain counts, the name does not.
///
/// The stock verifier looks at the name last, when the chain, its dates and its purposes have been
/// found in order (rustls 0.23, `WebPkiServerVerifier::verify_server_cert`: the chain is left with
/// `?` before `verify_server_name` is called). So a complaint about the name, and only that one,
/// means that everything else is well.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let stock = &self.0;
        match stock.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `sslmode=allow`, `prefer`, and `require` without roots: encryption without knowing with whom, as
/// libpq has it. The handshake's signatures are checked all the same: channel binding of passwords
/// relies on them.
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
