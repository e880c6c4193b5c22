//! TLS with certificates made on the spot.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{connect, exchange, read, request};
use super::*;
use crate::http::TlsFiles;

/// A self-signed certificate for `localhost`.
fn certificate(dir: &Path, name: &str) -> TlsFiles {
    let at = |suffix: &str| dir.join(format!("{name}.{suffix}"));
    let config = "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\nsubjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n";
    std::fs::write(at("cnf"), config).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost".split(' '),
    );
    openssl.arg("-config").arg(at("cnf")).arg("-keyout").arg(at("key")).arg("-out").arg(at("pem"));
    let output = openssl.output().expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    TlsFiles { cert: at("pem"), key: at("key") }
}

/// Sends over TLS, trusting only `cert`.
fn send(address: SocketAddr, cert: &Path) -> Result<Answer, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(address));
    stream.write_all(&request("POST", "/v1/receive/kubernetes", &bearer(), b"{}")).map_err(|e| e.to_string())?;
    Ok(read(&mut stream))
}

#[test]
fn a_renewed_certificate_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new();
    let files = certificate(dir.path(), "first");
    let renewed = certificate(dir.path(), "renewed");
    let old = dir.path().join("old.pem");
    std::fs::copy(&files.cert, &old).unwrap();
    setup.listen.tls = Some(files.clone());
    setup.listen.reload_every = Duration::from_millis(20);
    let server = setup.start();
    assert_eq!(send(server.address, &old).unwrap().status, 200);
    assert!(send(server.address, &renewed.cert).is_err(), "another certificate is not trusted");

    // The key comes a moment after the certificate: until it does, the old pair stays in use.
    std::fs::copy(&renewed.cert, &files.cert).unwrap();
    assert_eq!(send(server.address, &old).unwrap().status, 200);
    std::fs::copy(&renewed.key, &files.key).unwrap();
    wait_until("the new certificate is in use", || send(server.address, &renewed.cert).is_ok_and(|a| a.status == 200));
    assert!(send(server.address, &old).is_err());
}

#[test]
fn plain_senders_to_a_tls_port_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new();
    setup.listen.tls = Some(certificate(dir.path(), "cert"));
    let server = setup.start();
    let plain = std::panic::catch_unwind(|| {
        exchange(server.address, &request("POST", "/v1/receive/kubernetes", &bearer(), b"{}"))
    });
    assert!(plain.is_err(), "answered in plain text");
    assert_eq!(setup.kept(), []);
}

#[test]
fn what_is_wrong_with_the_files_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (certificate(dir.path(), "one"), certificate(dir.path(), "other"));
    let check = |cert: &Path, key: &Path, expected: &str| {
        let error = TlsFiles { cert: cert.into(), key: key.into() }.check().unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("\nhint: "), "{error}");
    };
    one.check().unwrap();
    check(&dir.path().join("absent"), &one.key, "cannot read");
    check(&one.key, &one.key, "is not a PEM certificate: there is none in it");
    check(&one.cert, &one.cert, "is not an unencrypted PEM private key");
    check(&one.cert, &other.key, "does not belong to the certificate");
}
