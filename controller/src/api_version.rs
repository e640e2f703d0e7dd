//! The version of the API server, compared with the oldest that has what Herald uses. The result is reported and stops
//! nothing: a distribution may have taken a feature into an older version.

use std::{fmt, time::Duration};

use herald_kube_common::{
    backoff::Backoff,
    request::{PATIENCE, RequestError, answered},
};
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use tokio::time::sleep;

/// The oldest version. The rules of the definitions call `isIP`, `isCIDR` and `ip`, which came with 1.30; an API server
/// accepts in new rules only the functions that the version before it knows as well (k8s.io/apiserver,
/// `pkg/cel/environment/base.go`). docs/install.md, "Kubernetes versions", lists the other features that Herald uses,
/// and their versions.
pub const OLDEST: Version = Version { major: 1, minor: 31 };

/// The first and the longest pause between two queries, while the API server does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A version of Kubernetes, by which features are counted: without patch and build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

impl Version {
    /// Reads a version, whatever follows the minor number: `v1.31.3+k3s1`, `1.30-eks`, `1.29+`.
    pub fn read(text: &str) -> Option<Self> {
        let (major, rest) = text.trim().trim_start_matches('v').split_once('.')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest.get(..digits)?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor } = self;
        write!(f, "{major}.{minor}")
    }
}

/// The meaning of an API server's version for Herald. Its text is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The version has the features that Herald uses.
    Supported(Version),
    /// The version is older than [`OLDEST`].
    TooOld(Version),
    /// The answer is not a version.
    Unreadable(String),
}

impl Verdict {
    /// Returns the verdict on the answer of an API server. A server that emulates an earlier version serves the
    /// features of that version.
    pub fn of(info: &Info) -> Self {
        let two = |major: &str, minor: &str| Version::read(&format!("{major}.{minor}"));
        let emulated = info.emulation_major.as_deref().zip(info.emulation_minor.as_deref());
        let version = emulated
            .and_then(|(major, minor)| two(major, minor))
            .or_else(|| Version::read(&info.git_version))
            .or_else(|| two(&info.major, &info.minor));
        match version {
            Some(version) if version < OLDEST => Self::TooOld(version),
            Some(version) => Self::Supported(version),
            None => Self::Unreadable(info.git_version.clone()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supported(version) => write!(f, "the API server serves Kubernetes {version}"),
            Self::TooOld(version) => write!(
                f,
                "the API server serves Kubernetes {version}, and Herald needs {OLDEST} or later: it may refuse Herald's \
                 CustomResourceDefinitions; update the cluster (docs/install.md, Kubernetes versions)"
            ),
            Self::Unreadable(text) => write!(
                f,
                "the API server's version cannot be read from {text:?}; Herald needs Kubernetes {OLDEST} or later \
                 (docs/install.md, Kubernetes versions)"
            ),
        }
    }
}

/// Queries the version of the API server and logs the verdict. Repeats the query until there is an answer.
pub async fn report(client: Client) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    loop {
        match answered(PATIENCE, client.apiserver_version()).await {
            Ok(info) => {
                let verdict = Verdict::of(&info);
                let version = &info.git_version;
                match verdict {
                    Verdict::Supported(_) => tracing::info!(version, "{verdict}"),
                    Verdict::TooOld(_) | Verdict::Unreadable(_) => tracing::warn!(version, "{verdict}"),
                }
                return;
            }
            // The API server answers, and would refuse again: every account may ask, unless the cluster's own roles
            // were changed.
            Err(error @ RequestError::Refused(_)) => {
                tracing::warn!(%error, "the API server's version is not known; Herald needs Kubernetes {OLDEST} or later");
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the API server has not reported its version yet");
                sleep(backoff.wait(fastrand::f64())).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use test_case::test_case;

    use super::*;

    #[test_case("v1.36.3" => Some((1, 36)))]
    #[test_case("v1.28.3+k3s1" => Some((1, 28)); "k3s")]
    #[test_case("1.30-eks" => Some((1, 30)); "without a patch")]
    #[test_case("v1.31.7-gke.1265000" => Some((1, 31)); "gke")]
    #[test_case("v1.32.0-alpha.1.12+0123456789abcd-dirty" => Some((1, 32)); "built by hand")]
    #[test_case("1.29+" => Some((1, 29)); "major and minor as EKS has them")]
    #[test_case("v2.0.0" => Some((2, 0)))]
    #[test_case("" => None)]
    #[test_case("unknown" => None)]
    #[test_case("v1." => None)]
    #[test_case("v1.x" => None)]
    #[test_case(".31" => None)]
    #[test_case("v1.99999999999" => None; "number out of range")]
    fn version_is_read(text: &str) -> Option<(u32, u32)> {
        Version::read(text).map(|version| (version.major, version.minor))
    }

    fn info(git_version: &str, major: &str, minor: &str, emulated: Option<&str>) -> Info {
        Info {
            git_version: git_version.to_owned(),
            major: major.to_owned(),
            minor: minor.to_owned(),
            emulation_major: emulated.map(|_| "1".to_owned()),
            emulation_minor: emulated.map(str::to_owned),
            ..Info::default()
        }
    }

    const fn one(minor: u32) -> Version {
        Version { major: 1, minor }
    }

    #[test_case(&info("v1.36.3", "1", "36", Some("36")) => Verdict::Supported(one(36)))]
    #[test_case(&info("v1.31.0", "1", "31", None) => Verdict::Supported(one(31)); "the oldest")]
    #[test_case(&info("v1.30.14+k3s2", "1", "30", None) => Verdict::TooOld(one(30)))]
    #[test_case(&info("v1.9.0", "1", "9", None) => Verdict::TooOld(one(9)); "numbers and not text are compared")]
    #[test_case(&info("v1.34.1", "1", "34", Some("30")) => Verdict::TooOld(one(30)); "emulates an earlier version")]
    #[test_case(&info("mine", "1", "33+", None) => Verdict::Supported(one(33)); "by major and minor")]
    #[test_case(&info("mine", "", "", None) => Verdict::Unreadable("mine".to_owned()))]
    #[test_case(&info("v2.0.0", "2", "0", None) => Verdict::Supported(Version { major: 2, minor: 0 }))]
    fn verdict_follows_the_version(info: &Info) -> Verdict {
        Verdict::of(info)
    }

    #[tokio::test(start_paused = true)]
    async fn api_server_is_asked_until_its_first_answer() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let answer = move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/version");
            let broken = count.fetch_add(1, Ordering::Relaxed) == 0;
            let info = serde_json::to_vec(&info("v1.36.3", "1", "36", None)).unwrap();
            std::future::ready(match broken {
                true => Err(std::io::Error::other("connection refused")),
                false => Ok(Response::new(Full::new(info.into()))),
            })
        };
        report(Client::new(tower::service_fn(answer), "default")).await;
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn verdict_on_an_old_version_names_the_needed_one() {
        let sentence = Verdict::TooOld(one(29)).to_string();
        assert!(sentence.contains("Kubernetes 1.29") && sentence.contains("1.31 or later"), "{sentence}");
    }
}
