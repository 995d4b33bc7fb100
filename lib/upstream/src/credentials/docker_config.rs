//! The files in which `docker login` and `podman login` keep credentials: config.json and auth.json.
//!
//! Sources: docker's `config.json`, containers-auth.json(5). The most specific key wins; a helper for the registry comes before
//! a general store, and either before what the file holds itself.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64_NOPAD};
use serde::Deserialize;
use shoal_core::RepositoryName;

use super::{Credentials, CredentialsError, Secret, helper};
use crate::reference::RegistryHost;

/// What one file says.
#[derive(Debug, Default)]
pub struct DockerConfig {
    path: PathBuf,
    file: File,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

impl DockerConfig {
    /// Reads a file. Blocks.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let failed = |source| CredentialsError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(failed)?;
        let invalid = |reason: String| CredentialsError::Invalid { path: path.to_owned(), reason };
        if text.len() as u64 > MAX_FILE {
            return Err(invalid(format!("it has more than {MAX_FILE} bytes, which no such file has")));
        }
        // serde's own message would quote what it found.
        let file = serde_json::from_str(&text).map_err(|error| {
            invalid(format!(
                "line {}, column {}: it is not of the form of docker's config.json",
                error.line(),
                error.column()
            ))
        })?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Where docker and podman keep such files, those first that they look at first.
    #[must_use]
    pub fn usual_places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
        if let Some(file) = variable("REGISTRY_AUTH_FILE") {
            return vec![file];
        }
        let home = variable("HOME");
        let docker = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let runtime = variable("XDG_RUNTIME_DIR");
        let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let podman =
            [runtime, config].into_iter().flatten().map(|folder| folder.join("containers/auth.json"));
        docker.into_iter().map(|folder| folder.join("config.json")).chain(podman).collect()
    }

    /// What the file has for a repository. A helper is asked where one is named.
    pub async fn credentials(
        &self,
        host: &RegistryHost,
        repository: &RepositoryName,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let server = if host.is_docker_hub() { DOCKER_HUB_KEY } else { host.as_str() };
        let named = self.file.cred_helpers.get(host.as_str()).or_else(|| self.file.cred_helpers.get(server));
        // Some write an empty name for none.
        if let Some(helper) = named.or(self.file.creds_store.as_ref()).filter(|helper| !helper.is_empty()) {
            let found = helper::ask(helper, server).await?;
            if found.is_some() || named.is_some() {
                return Ok(found);
            }
        }
        self.entry(host, repository).map(|(key, entry)| self.read(key, entry)).transpose()
    }

    /// The entry of the longest key that the repository is below.
    fn entry(&self, host: &RegistryHost, repository: &RepositoryName) -> Option<(&str, &Entry)> {
        let whole = format!("{host}/{repository}");
        let mut keys = vec![whole.as_str()];
        while let Some((shorter, _)) = keys[keys.len() - 1].rsplit_once('/') {
            keys.push(shorter);
        }
        let auths = &self.file.auths;
        let by_key = |key: &&str| auths.get_key_value(*key);
        let found = keys.iter().find_map(by_key).or_else(|| {
            let same = |key: &str| {
                without_scheme(key) == host.as_str() || (host.is_docker_hub() && is_docker_hub(key))
            };
            auths.iter().find(|(key, _)| same(key))
        });
        found.map(|(key, entry)| (key.as_str(), entry))
    }

    fn read(&self, key: &str, entry: &Entry) -> Result<Credentials, CredentialsError> {
        let token = |text: &String| (!text.is_empty()).then(|| Secret::new(text));
        if let Some(token) = token(&entry.identitytoken) {
            return Ok(Credentials::Identity(token));
        }
        if let Some(token) = token(&entry.registrytoken) {
            return Ok(Credentials::Token(token));
        }
        if entry.auth.is_empty() {
            return Ok(match entry.username.is_empty() {
                true => Credentials::Anonymous,
                false => Credentials::of(entry.username.clone(), entry.password.clone()),
            });
        }
        let pair = decode(&entry.auth).ok_or_else(|| CredentialsError::Invalid {
            path: self.path.clone(),
            reason: format!("auths.{key:?}.auth is not base64 of name:password"),
        })?;
        Ok(Credentials::of(pair.0, pair.1))
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let bytes = BASE64.decode(auth.as_bytes()).or_else(|_| BASE64_NOPAD.decode(auth.as_bytes())).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    // docker pads some with zeros.
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Old entries are URLs.
fn without_scheme(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

fn is_docker_hub(key: &str) -> bool {
    matches!(without_scheme(key), "index.docker.io" | "docker.io" | "registry-1.docker.io")
}

/// What docker calls Docker Hub there.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Some hundred registries are some tens of KiB.
const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> DockerConfig {
        DockerConfig { path: "config.json".into(), file: serde_json::from_str(json).unwrap() }
    }

    fn found(config: &DockerConfig, host: &str, repository: &str) -> Option<String> {
        let host = RegistryHost::parse(host).unwrap();
        let (key, entry) = config.entry(&host, &RepositoryName::parse(repository).unwrap())?;
        match config.read(key, entry).unwrap() {
            Credentials::Basic { user, password } => Some(format!("{user}:{}", password.expose())),
            Credentials::Identity(token) => Some(format!("identity {}", token.expose())),
            other => Some(format!("{other:?}")),
        }
    }

    #[test]
    fn the_most_specific_entry_is_taken() {
        let config = config(
            r#"{"auths": {
                "r.example": {"auth": "aG9zdDp4"}, "r.example/team": {"auth": "dGVhbTp4"},
                "https://old.example/v1/": {"auth": "b2xkOngAAA"}, "https://index.docker.io/v1/": {"auth": "aHViOmE6Yg=="},
                "i.example": {"identitytoken": "it", "auth": "aG9zdDp4"}, "p.example": {"username": "u", "password": "p"}
            }, "other": 1}"#,
        );
        for (host, repository, credentials) in [
            ("r.example", "app", Some("host:x")),
            ("r.example", "team/app", Some("team:x")),
            ("r.example", "teams/app", Some("host:x")),
            ("r.example:5000", "app", None),
            ("old.example", "app", Some("old:x")),
            ("docker.io", "library/alpine", Some("hub:a:b")),
            ("i.example", "app", Some("identity it")),
            ("p.example", "app", Some("u:p")),
            ("x.example", "app", None),
        ] {
            assert_eq!(found(&config, host, repository).as_deref(), credentials, "{host}/{repository}");
        }
    }

    #[test]
    fn an_error_names_the_file_and_none_of_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"auths": {"r.example": "hunter2"}}"#).unwrap();
        let error = DockerConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn files_are_looked_for_where_docker_and_podman_put_them() {
        let places = |set: &[(&str, &str)]| {
            let variables: HashMap<String, PathBuf> =
                set.iter().map(|(key, value)| ((*key).into(), value.into())).collect();
            DockerConfig::usual_places(|name| variables.get(name).cloned())
        };
        let home =
            ["/h/.docker/config.json", "/run/u/containers/auth.json", "/h/.config/containers/auth.json"];
        assert_eq!(places(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")]), home.map(PathBuf::from));
        assert_eq!(places(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")]), [PathBuf::from("/a")]);
        assert_eq!(places(&[("DOCKER_CONFIG", "/d")]), [PathBuf::from("/d/config.json")]);
    }
}
