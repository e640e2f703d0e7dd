//! Certificates and keys: one CA for servers and clients, and the key that signs service-account tokens.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The credential files of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The laboratory's certificate authority and its output directory.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Creates a new authority and writes its certificate and key (the controller manager signs with the key too).
    pub(super) fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "herald-lab-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { issuer, directory: directory.to_owned() };
        write_secret(&authority.ca_certificate(), &authority.issuer.pem())?;
        write_secret(&authority.ca_key(), &authority.issuer.key().serialize_pem())?;
        let tokens = KeyPair::generate()?;
        write_secret(&authority.service_account_key(), &tokens.serialize_pem())?;
        write_secret(&authority.service_account_public_key(), &tokens.public_key_pem())?;
        Ok(authority)
    }

    pub(super) fn ca_certificate(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    pub(super) fn ca_key(&self) -> PathBuf {
        self.directory.join("ca.key")
    }

    /// Returns the key that signs service-account tokens.
    pub(super) fn service_account_key(&self) -> PathBuf {
        self.directory.join("service-account.key")
    }

    /// Returns the key that verifies service-account tokens.
    pub(super) fn service_account_public_key(&self) -> PathBuf {
        self.directory.join("service-account.pub")
    }

    /// Issues a certificate for a server with these names and addresses.
    pub(super) fn server(&self, name: &str, alternative_names: Vec<String>) -> Result<Credentials> {
        let mut params = CertificateParams::new(alternative_names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(&format!("{name}-server"), params)
    }

    /// Issues a certificate for a client: Kubernetes reads the user from the common name and the group from the
    /// organization.
    pub(super) fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<Credentials> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(file, params)
    }

    fn issue(&self, file: &str, mut params: CertificateParams) -> Result<Credentials> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let credentials = Credentials {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        write_secret(&credentials.certificate, &certificate.pem())?;
        write_secret(&credentials.key, &key.serialize_pem())?;
        Ok(credentials)
    }
}

/// Writes a kubeconfig (JSON is YAML) for a client.
pub(super) fn write_kubeconfig(file: &Path, server: &str, ca: &Path, client: &Credentials) -> Result<()> {
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": "user", "user": {"client-certificate": client.certificate, "client-key": client.key}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "user"}}],
        "current-context": "lab",
    });
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    }
    write_secret(file, &serde_json::to_string_pretty(&config)?)
}

fn write_secret(file: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .with_context(|| file.display().to_string())
}
