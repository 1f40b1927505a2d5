//! Certificates and keys from files, and what TLS is told with them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use flightmode_wire::scram::EndPointHash;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::x509::AlgorithmIdentifier;

use crate::config::{ServerTls, ServerTlsMode};

fn wrong(path: &Path, words: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{}: {words}", path.display()),
    )
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain, our own first.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|why| wrong(path, why))?
        .collect();
    let found = found.map_err(|why| wrong(path, why))?;
    if found.is_empty() {
        return Err(wrong(path, "holds no certificate"));
    }
    Ok(found)
}

fn roots(path: &Path) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|why| wrong(path, why))?;
    }
    Ok(store)
}

/// What clients meet.
pub fn server_settings(
    chain: Vec<CertificateDer<'static>>,
    key: &Path,
    client_ca: Option<&Path>,
) -> io::Result<ServerConfig> {
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(key, why))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| wrong(key, why))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|why| wrong(path, why))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut settings = builder
        .with_single_cert(chain, private)
        .map_err(|why| wrong(key, why))?;
    settings.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(settings)
}

/// What servers meet; `None`: no TLS.
pub fn client_settings(tls: &ServerTls) -> io::Result<Option<Arc<ClientConfig>>> {
    if tls.mode == ServerTlsMode::Disable {
        return Ok(None);
    }
    let anywhere = Path::new("server_tls");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|why| wrong(anywhere, why))?;
    let builder = match (tls.mode, &tls.ca) {
        (ServerTlsMode::VerifyFull, None) => {
            return Err(wrong(anywhere, "verify-full needs `ca`"));
        }
        (ServerTlsMode::VerifyFull, Some(path)) => builder.with_root_certificates(roots(path)?),
        _ => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Encrypted(provider()))),
    };
    let settings = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key).map_err(|why| wrong(key, why))?;
            builder
                .with_client_auth_cert(certificates(cert)?, private)
                .map_err(|why| wrong(key, why))?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(settings)))
}

/// What the two ends of a channel bind to: the server's certificate, hashed as it was signed (RFC
/// 5929, 4.1).  `None` where the signature names no hash (Ed25519): nothing can be bound then.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let hash = signed_with(&parsed.signature_algorithm)?;
    Some(hash.of(certificate))
}

fn signed_with(algorithm: &AlgorithmIdentifier) -> Option<EndPointHash> {
    const PSS: &str = "1.2.840.113549.1.1.10";
    let name = algorithm.algorithm.to_id_string();
    if name != PSS {
        return hash_named(&name);
    }
    // Its hash is not in its name.
    match SignatureAlgorithm::try_from(algorithm).ok()? {
        SignatureAlgorithm::RSASSA_PSS(more) => {
            hash_named(&more.hash_algorithm_oid().to_id_string())
        }
        _ => None,
    }
}

/// By the name of a signature (RSA, then ECDSA) or of the hash itself.
fn hash_named(name: &str) -> Option<EndPointHash> {
    Some(match name {
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.2.1" => {
            EndPointHash::Sha256
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => {
            EndPointHash::Sha384
        }
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => {
            EndPointHash::Sha512
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" | "2.16.840.1.101.3.4.2.4" => {
            EndPointHash::Sha224
        }
        // MD5, then SHA-1: too weak to bind by.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.2.5"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.3.14.3.2.26" => EndPointHash::Sha256,
        _ => return None,
    })
}

/// `prefer` and `require` of libpq: encrypted, whoever it is.
#[derive(Debug)]
struct Encrypted(Arc<CryptoProvider>);

impl ServerCertVerifier for Encrypted {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer,
        _intermediates: &[CertificateDer],
        _name: &ServerName,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
