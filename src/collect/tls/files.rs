//! The files of TLS: certificates of authorities, our own certificate and its key.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::collect::conninfo::{KeyFile, Roots};

/// Whose certificates are accepted.
pub(super) enum Authorities {
    /// Anybody's: encryption without knowing with whom.
    Any,
    /// Those of these authorities; who they are, in words.
    These(RootCertStore, String),
}

/// What `sslmode=require` checks: nothing, unless there is a file of roots.
pub(super) fn authorities_if_any(roots: &Roots) -> Result<Authorities, TlsError> {
    match roots {
        Roots::File(path) => from_file(path),
        Roots::UserFile(path) if path.exists() => from_file(path),
        Roots::UserFile(_) | Roots::System => Ok(Authorities::Any),
    }
}

/// A file of roots that must be there.
pub(super) fn authorities(roots: &Roots, mode: &'static str) -> Result<Authorities, TlsError> {
    match roots {
        Roots::UserFile(path) if !path.exists() => {
            Err(TlsError::NoAuthority { mode, path: path.clone() })
        }
        Roots::File(path) | Roots::UserFile(path) => from_file(path),
        Roots::System => Ok(from_system()),
    }
}

/// What `sslmode=verify-full` checks: without a file, whom this machine trusts.
pub(super) fn authorities_or_system(roots: &Roots) -> Result<Authorities, TlsError> {
    match roots {
        Roots::File(path) => from_file(path),
        Roots::UserFile(path) if path.exists() => from_file(path),
        Roots::UserFile(_) | Roots::System => Ok(from_system()),
    }
}

fn from_file(path: &Path) -> Result<Authorities, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates(path)?);
    if store.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(Authorities::These(store, path.display().to_string()))
}

/// Authorities in a text of PEM that was read from this file.
pub(super) fn from_pem(path: &Path, text: &[u8]) -> Result<Authorities, TlsError> {
    let wrong = |source| TlsError::Certificates { path: path.to_owned(), source };
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(found.map_err(wrong)?);
    if store.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(Authorities::These(store, path.display().to_string()))
}

pub(super) fn from_system() -> Authorities {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let said = "the authorities of Mozilla's list: this machine has none of its own";
        return Authorities::These(store, said.to_owned());
    }
    Authorities::These(store, "the authorities that this machine trusts".to_owned())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::Certificates { path: path.to_owned(), source };
    let read = CertificateDer::pem_file_iter(path).map_err(wrong)?;
    let read = read.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if read.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(read) }
}

/// Our own certificate, its chain and its key; none if none is there and none was asked for.
type Own = (PathBuf, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub(super) fn own(files: &KeyFile) -> Result<Option<Own>, TlsError> {
    if !files.required && !files.certificate.exists() {
        return Ok(None);
    }
    let chain = certificates(&files.certificate)?;
    Ok(Some((files.certificate.clone(), chain, key(&files.key)?)))
}

/// A key that others may read is not used, as libpq has it (`initialize_SSL` in
/// fe-secure-openssl.c): one of our own is 0600 or less, one of root's 0640 or less.
fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |why: &str| TlsError::Key { path: path.to_owned(), why: why.to_owned() };
    let found = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong("is not there, and the certificate is of no use without it"),
        _ => wrong(&format!("cannot be read: {error}")),
    })?;
    if !found.is_file() {
        return Err(wrong("is no ordinary file"));
    }
    let too_open = if found.uid() == 0 { 0o037 } else { 0o077 };
    if found.mode() & too_open != 0 {
        return Err(wrong("may be read by others; chmod 0600 it"));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(path) => {
            wrong("is encrypted, and there is nobody to ask; store it without a passphrase")
        }
        pem::Error::NoItemsFound => wrong("holds no key in PEM form"),
        // These errors hold positions and labels, and nothing of the key.
        error => wrong(&format!("cannot be read: {error}")),
    })
}

fn is_encrypted(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN ENCRYPTED PRIVATE KEY"))
}
