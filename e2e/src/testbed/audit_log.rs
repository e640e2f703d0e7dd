//! Herald's requests according to the API server's audit log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::testbed::install;

/// Account of the controllers.
pub(crate) const CONTROLLER: &str = "herald-controller";
/// Account of the speakers.
pub(crate) const SPEAKER: &str = "herald-speaker";

/// The beginning of each line of the API server (k8s.io/apiserver/plugin/pkg/audit/log).
const EVENT_BEGINS: &str = r#"{"kind":"Event","#;

/// A request of one of Herald's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// [`CONTROLLER`] or [`SPEAKER`].
    pub(crate) account: String,
    /// The source address: for a speaker the address of its node.
    pub(crate) source: String,
    pub(crate) verb: String,
    /// The resource with its subresource: `services/status`.
    pub(crate) resource: String,
    /// Namespace of the object; empty if it has none.
    pub(crate) namespace: String,
    /// Name of the object; empty if the request concerns several.
    pub(crate) name: String,
    /// HTTP status code of the response.
    pub(crate) code: u16,
}

impl Request {
    /// Returns whether the request changes something; a refused write costs the API server as much.
    ///
    /// Renewals of the lease do not count: they come every 2 s regardless of load.
    pub(crate) fn is_write(&self) -> bool {
        let changes = matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        changes && self.resource != "leases"
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { account, source, verb, resource, namespace, name, code } = self;
        write!(f, "{account} at {source}: {verb} {resource} {namespace}/{name} ({code})")
    }
}

/// The relevant fields of an `audit.k8s.io/v1` Event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    stage: String,
    verb: String,
    user: User,
    #[serde(default, rename = "sourceIPs")]
    source_ips: Vec<String>,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    /// Empty if the request was not authenticated: its pod is gone, or the API server does not reach etcd.
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

/// Parses an event of the audit log into the requested fields.
///
/// An API server that is killed leaves the beginning of a line, to which its next run appends: the truncated event is
/// lost, the event after it is not.
///
/// # Errors
/// If the line does not contain an event.
pub(crate) fn event<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T> {
    let whole = line.rfind(EVENT_BEGINS).map_or(line, |at| &line[at..]);
    serde_json::from_str(whole).with_context(|| format!("an audit event: {line}"))
}

/// Parses a line; returns `None` for requests of other accounts, and for the end of a watch, which was counted at its
/// beginning.
fn read(line: &str) -> Result<Option<Request>> {
    let event: Event = event(line)?;
    let Event { stage, verb, user, source_ips, object_ref, response_status: Status { code } } = event;
    let prefix = format!("system:serviceaccount:{}:", install::NAMESPACE);
    let Some(account) = user.username.strip_prefix(&prefix) else { return Ok(None) };
    // A granted watch has one line when it begins (ResponseStarted) and one when it ends (ResponseComplete); every
    // other request has only the latter (k8s.io/apiserver/pkg/endpoints/filters/audit.go).
    if verb == "watch" && stage == "ResponseComplete" && code < 400 {
        return Ok(None);
    }
    let ObjectRef { resource, subresource, namespace, name } = object_ref;
    let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
    let source = source_ips.into_iter().next().unwrap_or_default();
    Ok(Some(Request { account: account.to_owned(), source, verb, resource, namespace, name, code }))
}

/// A position in the audit log.
#[derive(Debug)]
pub(crate) struct AuditLog {
    path: PathBuf,
    offset: u64,
    /// The beginning of an incomplete line.
    rest: String,
}

impl AuditLog {
    /// Starts at the end of the log. The API server writes a request's line before it answers
    /// (`--audit-log-mode=blocking`, its default), so no request that is answered later is missed.
    pub(crate) fn from_now(path: &Path) -> Result<Self> {
        let offset = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
        Ok(Self { path: path.to_owned(), offset, rest: String::new() })
    }

    /// Returns Herald's requests since the last call.
    pub(crate) fn read(&mut self) -> Result<Vec<Request>> {
        let mut file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        let length = file.metadata().context("the audit log")?.len();
        anyhow::ensure!(length >= self.offset, "the audit log was rotated in the middle of the measurement");
        file.seek(SeekFrom::Start(self.offset)).context("the audit log")?;
        let mut bytes = Vec::new();
        let read_bytes = file.take(length - self.offset).read_to_end(&mut bytes).context("the audit log")?;
        self.offset += read_bytes as u64;
        let text = std::mem::take(&mut self.rest) + &String::from_utf8(bytes).context("the audit log")?;
        let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        let requests = lines.lines().map(read).filter_map(Result::transpose).collect::<Result<_>>()?;
        self.rest = rest.to_owned();
        Ok(requests)
    }

    /// Returns Herald's writes since the last call.
    pub(crate) fn writes(&mut self) -> Result<Vec<Request>> {
        let mut requests = self.read()?;
        requests.retain(Request::is_write);
        Ok(requests)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// Returns a request of this account from a node's address.
    pub(crate) fn request(account: &str, source: &str, verb: &str, resource: &str) -> Request {
        Request {
            account: account.to_owned(),
            source: source.to_owned(),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: String::new(),
            name: "x".to_owned(),
            code: 200,
        }
    }

    fn line(account: &str, verb: &str, resource: &str, subresource: &str, code: u16) -> String {
        let user = format!("system:serviceaccount:herald-system:{account}");
        serde_json::json!({"stage": "ResponseComplete", "verb": verb, "user": {"username": user},
            "sourceIPs": ["10.10.0.11"], "responseStatus": {"code": code},
            "objectRef": {"resource": resource, "subresource": subresource, "name": "x"}})
        .to_string()
            + "\n"
    }

    #[test]
    fn only_writes_count_and_an_incomplete_line_waits() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(line(CONTROLLER, "create", "virtualips", "", 201).as_bytes()).unwrap();
        let mut log = AuditLog::from_now(file.path()).unwrap();
        assert_eq!(log.writes().unwrap(), [], "earlier requests do not count");
        let half = line(SPEAKER, "patch", "virtualips", "status", 200);
        let (begin, end) = half.split_at(20);
        for text in [
            &line(CONTROLLER, "create", "virtualips", "", 201),
            &line(CONTROLLER, "update", "leases", "", 200),
            &line(CONTROLLER, "list", "services", "", 200),
            &line(CONTROLLER, "patch", "services", "status", 409),
            "{\"verb\":\"create\",\"user\":{\"username\":\"admin\"},\"objectRef\":{\"resource\":\"services\"}}\n",
            "{\"verb\":\"create\",\"user\":{},\"objectRef\":{\"resource\":\"services\"},\"responseStatus\":{\"code\":401}}\n",
            begin,
        ] {
            file.write_all(text.as_bytes()).unwrap();
        }
        let writes: Vec<_> = log.writes().unwrap().iter().map(ToString::to_string).collect();
        let expected = ["create virtualips /x (201)", "patch services/status /x (409)"];
        assert_eq!(writes, expected.map(|write| format!("herald-controller at 10.10.0.11: {write}")));
        file.write_all(end.as_bytes()).unwrap();
        let last = log.writes().unwrap();
        assert_eq!((last.len(), &*last[0].account, &*last[0].resource), (1, SPEAKER, "virtualips/status"));
    }

    #[test]
    fn truncated_line_does_not_hide_the_next_event() {
        let next = format!("{EVENT_BEGINS}{}", &line(SPEAKER, "patch", "virtualips", "status", 200)[1..]);
        let torn = format!("{}{}", &next[..next.len() / 2], next.trim());
        let request = read(&torn).unwrap().unwrap();
        assert_eq!((&*request.account, &*request.resource), (SPEAKER, "virtualips/status"));
        assert!(read(&next[..next.len() / 2]).is_err(), "nothing follows it");
    }

    #[test]
    fn watch_counts_once() {
        let ended = line(SPEAKER, "watch", "nodes", "", 200);
        let begun = ended.replace("ResponseComplete", "ResponseStarted");
        let refused = line(SPEAKER, "watch", "nodes", "", 410);
        let counted = [begun, ended, refused].map(|line| read(line.trim()).unwrap().map(|request| request.code));
        assert_eq!(counted, [Some(200), None, Some(410)]);
    }
}
