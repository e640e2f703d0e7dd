//! The API server's audit log, compared with the shipped roles.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::testbed::audit_log;

/// A permission that a rule grants or a request used: one verb on one resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Permission {
    pub(super) account: String,
    pub(super) group: String,
    /// The resource with its subresource: `services/status`.
    pub(super) resource: String,
    pub(super) verb: String,
}

impl std::fmt::Display for Permission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { account, group, resource, verb } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{account}: {verb} {resource}{dot}{group}")
    }
}

/// The requests of Herald's service accounts to the API server.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) used: BTreeSet<Permission>,
    /// Denied requests, as in the log, without those that were allowed at another time: an API server that has just
    /// started denies requests whose roles it has not read yet.
    pub(super) denied: BTreeSet<String>,
}

/// The relevant fields of an `audit.k8s.io/v1` Event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    object_ref: Option<ObjectRef>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    /// Empty if the request was not authenticated: its pod is gone, or the API server does not reach etcd.
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    api_group: String,
}

/// Parses the log's lines and skips requests of other accounts.
pub(super) fn requests_of(namespace: &str, log: &str) -> Result<Requests> {
    let prefix = format!("system:serviceaccount:{namespace}:");
    let mut requests = Requests::default();
    let mut allowed = BTreeSet::new();
    for line in log.lines() {
        let event: Event = audit_log::event(line)?;
        let Some(account) = event.user.username.strip_prefix(&prefix) else { continue };
        // Rules do not look at the query, where each watch has its own version and timeout.
        let path = event.request_uri.split('?').next().unwrap_or_default();
        let request = format!("{account}: {} {path}", event.verb);
        // The authorizer writes this annotation (k8s.io/apiserver/pkg/endpoints/filters/authorization.go).
        match event.annotations.get("authorization.k8s.io/decision").map(String::as_str) {
            Some("forbid") => requests.denied.insert(request),
            _ => allowed.insert(request),
        };
        let Some(object) = event.object_ref else { continue };
        requests.used.insert(Permission {
            account: account.to_owned(),
            group: object.api_group,
            resource: join(&object.resource, &object.subresource),
            verb: event.verb,
        });
    }
    requests.denied.retain(|request| !allowed.contains(request));
    Ok(requests)
}

fn join(resource: &str, subresource: &str) -> String {
    if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") }
}

/// A Role or ClusterRole, reduced to the fields that grant permissions.
#[derive(Deserialize)]
struct Role {
    kind: String,
    metadata: Named,
    #[serde(default)]
    rules: Vec<Rule>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    role_ref: RoleRef,
    subjects: Vec<Named>,
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// Returns every permission that manifests grant to the accounts they bind. A role without a binding is meant for
/// people.
pub(super) fn granted_by(manifests: &str) -> Result<BTreeSet<Permission>> {
    let objects = manifests.split("\n---\n").map(|document| serde_saphyr::from_str(document).context("a manifest"));
    let objects: Vec<serde_json::Value> = objects.collect::<Result<_>>()?;
    let of_kind = |kinds: [&'static str; 2]| {
        objects.iter().filter(move |object| object["kind"].as_str().is_some_and(|kind| kinds.contains(&kind))).cloned()
    };
    let bindings = of_kind(["RoleBinding", "ClusterRoleBinding"]).map(serde_json::from_value::<Binding>);
    let bindings: Vec<_> = bindings.collect::<Result<_, _>>().context("a binding")?;
    let mut granted = BTreeSet::new();
    for object in of_kind(["Role", "ClusterRole"]) {
        let role: Role = serde_json::from_value(object).context("a role")?;
        let (kind, name) = (&role.kind, &role.metadata.name);
        anyhow::ensure!(!role.rules.is_empty(), "{kind} {name} grants nothing");
        let is_bound = |binding: &&Binding| binding.role_ref.kind == *kind && binding.role_ref.name == *name;
        for account in bindings.iter().filter(is_bound).flat_map(|binding| &binding.subjects) {
            granted.extend(role.rules.iter().flat_map(|rule| rule.permissions(&account.name)));
        }
    }
    Ok(granted)
}

impl Rule {
    /// Returns each permission of the rule for an account.
    fn permissions(&self, account: &str) -> impl Iterator<Item = Permission> {
        let pairs =
            self.api_groups.iter().flat_map(|group| self.resources.iter().map(move |resource| (group, resource)));
        let all = pairs.flat_map(|(group, resource)| self.verbs.iter().map(move |verb| (group, resource, verb)));
        all.map(move |(group, resource, verb)| Permission {
            account: account.to_owned(),
            group: group.clone(),
            resource: resource.clone(),
            verb: verb.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"verb":"patch","user":{"username":"system:serviceaccount:herald-system:herald-speaker"},"requestURI":"/x","objectRef":{"resource":"virtualips","subresource":"status","apiGroup":"heraldlb.io"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"delete","user":{"username":"system:serviceaccount:herald-system:herald-speaker"},"requestURI":"/api/v1/nodes/n","objectRef":{"resource":"nodes"},"annotations":{"authorization.k8s.io/decision":"forbid"}}
{"verb":"get","user":{"username":"system:serviceaccount:herald-system:herald-speaker"},"requestURI":"/api/v1/nodes/m?timeoutSeconds=18","objectRef":{"resource":"nodes"},"annotations":{"authorization.k8s.io/decision":"forbid"}}
{"verb":"get","user":{"username":"system:serviceaccount:herald-system:herald-speaker"},"requestURI":"/api/v1/nodes/m?timeoutSeconds=21","objectRef":{"resource":"nodes"},"annotations":{"authorization.k8s.io/decision":"allow"}}
{"verb":"get","user":{},"requestURI":"/api/v1/nodes/m","responseStatus":{"code":401}}
{"verb":"get","user":{"username":"admin"},"requestURI":"/version"}"#;

    #[test]
    fn used_and_denied_requests_are_separated() {
        let requests = requests_of("herald-system", LOG).unwrap();
        let used: Vec<_> = requests.used.iter().map(ToString::to_string).collect();
        let expected = ["delete nodes", "get nodes", "patch virtualips/status.heraldlb.io"];
        assert_eq!(used, expected.map(|request| format!("herald-speaker: {request}")));
        assert_eq!(requests.denied, ["herald-speaker: delete /api/v1/nodes/n".to_owned()].into());
    }

    #[test]
    fn rule_grants_every_combination() {
        let manifests = "kind: Namespace\nmetadata: {name: x}\n---\nkind: Role\nmetadata: {name: r}\nrules:\n\
                         - {apiGroups: [''], resources: [pods, pods/log], verbs: [get, list]}\n---\n\
                         kind: RoleBinding\nroleRef: {kind: Role, name: r}\nsubjects: [{kind: ServiceAccount, name: a}]\n";
        let granted: Vec<_> = granted_by(manifests).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(granted, ["a: get pods", "a: list pods", "a: get pods/log", "a: list pods/log"]);
    }

    #[test]
    fn unbound_role_grants_nothing() {
        let role =
            "kind: ClusterRole\nmetadata: {name: r}\nrules:\n- {apiGroups: [''], resources: [pods], verbs: [get]}\n";
        let of_its_name = "kind: RoleBinding\nroleRef: {kind: Role, name: r}\nsubjects: [{name: a}]\n";
        assert!(granted_by(&format!("{role}---\n{of_its_name}")).unwrap().is_empty());
        assert_eq!(
            granted_by(&format!("{role}---\n{}", of_its_name.replace("kind: Role,", "kind: ClusterRole,")))
                .unwrap()
                .len(),
            1
        );
    }
}
