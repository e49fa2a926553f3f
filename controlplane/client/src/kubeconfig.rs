//! The kubeconfig file: who the user is, and where the cluster is. Read and written as kubectl does.
//!
//! Only what this cluster's own files hold: a server, its CA, and a client certificate or a token, inline or as files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// One cluster and one user of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `https://host:port`; the first is the one that the file names, the others are tried after it.
    pub servers: Vec<String>,
    /// The cluster's CA, PEM.
    pub ca_pem: String,
    /// The user's certificate and its chain, PEM; empty if there is none.
    pub certificate_pem: String,
    /// The certificate's key, PEM.
    pub key_pem: String,
    /// A bearer token in place of a certificate.
    pub token: Option<String>,
    /// The namespace that commands mean when they name none.
    pub namespace: Option<String>,
}

/// A kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no kubeconfig.
    #[error("understand the kubeconfig: {0}")]
    Syntax(String),
    /// It lacks something.
    #[error("find {0} in the kubeconfig")]
    Missing(&'static str),
}

impl Kubeconfig {
    /// Reads the file at `path`; its current context counts.
    ///
    /// # Errors
    /// [`KubeconfigError`].
    pub fn load(path: &Path) -> Result<Self, KubeconfigError> {
        Self::parse(&read(path)?, path.parent().unwrap_or(Path::new(".")))
    }

    /// Understands a kubeconfig; paths in it are relative to `directory`.
    ///
    /// # Errors
    /// [`KubeconfigError`].
    pub fn parse(text: &str, directory: &Path) -> Result<Self, KubeconfigError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| KubeconfigError::Syntax(error.to_string()))?;
        let context =
            file.contexts.iter().find(|context| context.name == file.current_context).map(|named| &named.context);
        let context = context.ok_or(KubeconfigError::Missing("the current context"))?;
        let cluster = file.clusters.iter().find(|cluster| cluster.name == context.cluster).map(|named| &named.cluster);
        let cluster = cluster.ok_or(KubeconfigError::Missing("the cluster of the current context"))?;
        let user = file.users.iter().find(|user| user.name == context.user).map(|named| &named.user);
        let user = user.ok_or(KubeconfigError::Missing("the user of the current context"))?;
        let pem = |inline: &Option<String>, path: &Option<String>| match (inline, path) {
            (Some(inline), _) => unpack(inline),
            (None, Some(path)) => read(&directory.join(path)),
            (None, None) => Ok(String::new()),
        };
        Ok(Self {
            servers: vec![cluster.server.clone()],
            ca_pem: pem(&cluster.certificate_authority_data, &cluster.certificate_authority)?,
            certificate_pem: pem(&user.client_certificate_data, &user.client_certificate)?,
            key_pem: pem(&user.client_key_data, &user.client_key)?,
            token: user.token.clone(),
            namespace: context.namespace.clone(),
        })
    }

    /// The text of a kubeconfig file in which everything is named `shoal`. It holds a secret key: keep it private.
    ///
    /// # Panics
    /// Never: the document is always valid YAML.
    pub fn render(&self) -> String {
        let pack = |pem: &str| (!pem.is_empty()).then(|| STANDARD.encode(pem));
        let name = || "shoal".to_owned();
        let file = File {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            current_context: name(),
            clusters: vec![NamedCluster {
                name: name(),
                cluster: Cluster {
                    server: self.servers.first().cloned().unwrap_or_default(),
                    certificate_authority_data: pack(&self.ca_pem),
                    certificate_authority: None,
                },
            }],
            users: vec![NamedUser {
                name: name(),
                user: User {
                    client_certificate_data: pack(&self.certificate_pem),
                    client_key_data: pack(&self.key_pem),
                    token: self.token.clone(),
                    ..User::default()
                },
            }],
            contexts: vec![NamedContext {
                name: name(),
                context: Context { cluster: name(), user: name(), namespace: self.namespace.clone() },
            }],
        };
        // JSON is YAML, and every reader of one reads the other.
        serde_json::to_string_pretty(&file).expect("a tree of strings is always JSON")
    }
}

fn read(path: &Path) -> Result<String, KubeconfigError> {
    std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })
}

fn unpack(text: &str) -> Result<String, KubeconfigError> {
    let bytes = STANDARD.decode(text.trim()).map_err(|error| KubeconfigError::Syntax(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| KubeconfigError::Syntax(error.to_string()))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(rename = "current-context")]
    current_context: String,
    clusters: Vec<NamedCluster>,
    contexts: Vec<NamedContext>,
    users: Vec<NamedUser>,
}

#[derive(Serialize, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Serialize, Deserialize)]
struct Context {
    cluster: String,
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let config = Kubeconfig {
            servers: vec!["https://127.0.0.1:6443".to_owned()],
            ca_pem: "ca".to_owned(),
            certificate_pem: "certificate".to_owned(),
            key_pem: "key".to_owned(),
            token: None,
            namespace: Some("apps".to_owned()),
        };
        assert_eq!(Kubeconfig::parse(&config.render(), Path::new(".")).expect("our own text"), config);
    }

    #[test]
    fn a_context_that_is_not_there_is_named() {
        let text = "current-context: a\nclusters: []\ncontexts: []\nusers: []\n";
        let error = Kubeconfig::parse(text, Path::new(".")).expect_err("it names no context");
        assert_eq!(error.to_string(), "find the current context in the kubeconfig");
    }
}
