//! Who wrote what: the API server's audit log, counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Writes of Herald's programs, each kind of request with its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    entries: BTreeMap<Entry, usize>,
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// `herald-controller` or `herald-speaker`.
    pub(super) account: String,
    pub(super) verb: String,
    /// With its subresource: `services/status`.
    pub(super) resource: String,
    /// Refused writes cost the API server as much.
    pub(super) code: u16,
}

/// The fields of an `audit.k8s.io/v1` Event that are read here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ObjectRef {
    resource: String,
    subresource: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl Ledger {
    /// Takes in one line of the log, if it is a write of Herald.
    ///
    /// Renewals of the lease are none of these: one every 2 s, whatever there is to do.
    fn take(&mut self, line: &str) -> Result<()> {
        let event: Event = serde_json::from_str(line).with_context(|| format!("an audit event: {line}"))?;
        let Event { verb, user, object_ref: ObjectRef { resource, subresource }, response_status } = event;
        let Some(account) = user.username.strip_prefix("system:serviceaccount:herald-system:") else { return Ok(()) };
        let writes = matches!(verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        if writes && resource != "leases" {
            let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
            let entry = Entry { account: account.to_owned(), verb, resource, code: response_status.code };
            *self.entries.entry(entry).or_default() += 1;
        }
        Ok(())
    }

    /// All entries.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Entry, usize)> {
        self.entries.iter().map(|(entry, count)| (entry, *count))
    }

    /// Writes of one account.
    pub(super) fn of(&self, account: &str) -> usize {
        self.entries().filter(|(entry, _)| entry.account == account).map(|(_, count)| count).sum()
    }

    /// Writes of all.
    pub(super) fn total(&self) -> usize {
        self.entries.values().sum()
    }
}

/// A place in the audit log.
#[derive(Debug)]
pub(super) struct AuditLog {
    path: PathBuf,
    offset: u64,
    /// The beginning of a line that was not complete.
    rest: String,
}

impl AuditLog {
    /// From its end on. The API server writes a request's line before it answers (`--audit-log-mode=blocking`, its
    /// default), so nothing that was answered later is missed.
    pub(super) fn from_now(path: &Path) -> Result<Self> {
        let offset = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
        Ok(Self { path: path.to_owned(), offset, rest: String::new() })
    }

    /// Adds what was written since the last time. Returns how many writes of Herald that were.
    pub(super) fn read(&mut self, ledger: &mut Ledger) -> Result<usize> {
        let before = ledger.total();
        let mut file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        let length = file.metadata().context("the audit log")?.len();
        anyhow::ensure!(length >= self.offset, "the audit log was rotated in the middle of the measurement");
        file.seek(SeekFrom::Start(self.offset)).context("the audit log")?;
        let mut bytes = Vec::new();
        let read = file.take(length - self.offset).read_to_end(&mut bytes).context("the audit log")?;
        self.offset += read as u64;
        let text = std::mem::take(&mut self.rest) + &String::from_utf8(bytes).context("the audit log")?;
        let (lines, rest) = text.rsplit_once('\n').unwrap_or(("", &text));
        lines.lines().try_for_each(|line| ledger.take(line))?;
        self.rest = rest.to_owned();
        Ok(ledger.total() - before)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(account: &str, verb: &str, resource: &str, subresource: &str, code: u16) -> String {
        let user = format!("system:serviceaccount:herald-system:{account}");
        serde_json::json!({"verb": verb, "user": {"username": user}, "responseStatus": {"code": code},
            "objectRef": {"resource": resource, "subresource": subresource}})
        .to_string()
            + "\n"
    }

    #[test]
    fn writes_are_counted_and_nothing_else() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(line("herald-controller", "create", "virtualips", "", 201).as_bytes()).unwrap();
        let mut log = AuditLog::from_now(file.path()).unwrap();
        let mut ledger = Ledger::default();
        assert_eq!(log.read(&mut ledger).unwrap(), 0, "what was before does not count");
        let half = line("herald-speaker", "patch", "virtualips", "status", 200);
        let (begin, end) = half.split_at(20);
        for text in [
            &line("herald-controller", "create", "virtualips", "", 201),
            &line("herald-controller", "update", "leases", "", 200),
            &line("herald-controller", "watch", "services", "", 200),
            &line("herald-controller", "patch", "services", "status", 409),
            "{\"verb\":\"create\",\"user\":{\"username\":\"admin\"},\"objectRef\":{\"resource\":\"services\"}}\n",
            begin,
        ] {
            file.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(log.read(&mut ledger).unwrap(), 2);
        file.write_all(end.as_bytes()).unwrap();
        assert_eq!(log.read(&mut ledger).unwrap(), 1);
        assert_eq!((ledger.of("herald-controller"), ledger.of("herald-speaker")), (2, 1));
        let refused: Vec<_> = ledger.entries().filter(|(entry, _)| entry.code == 409).collect();
        assert_eq!((refused.len(), &*refused[0].0.resource), (1, "services/status"));
    }
}
