use std::{collections::BTreeSet, os::unix::fs::PermissionsExt};

use herald_protocol::{
    SavedState,
    claim::{Birth, Claim, ClaimKey, Epoch, Reason},
};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_case::test_case;

use super::*;
use crate::{
    api_objects::{Node, ServiceName, Slice, Speaker, Vip},
    keys::Keys,
};

fn claims(epoch: u32) -> Claims {
    let claim = Claim {
        address: "192.0.2.1".parse().unwrap(),
        birth: Birth(1_700_000_000),
        epoch: Epoch(epoch),
        key: ClaimKey(u64::MAX),
        reason: Reason::Dead,
        cover: true,
    };
    let floors = vec![("2001:db8::1".parse().unwrap(), Birth(7), Epoch(2))];
    Claims::from([("eth0".to_owned(), SavedState { claims: vec![claim], floors, ..SavedState::default() })])
}

fn view() -> View {
    let rule = json!({"name": "l2", "nodeSelectors": [{"matchLabels": {"a": "b"}}], "interfaces": ["eth*"],
                      "preferredNodeSelectors": [], "failback": "Always", "cover": true});
    let vip = json!({
        "metadata": {"name": "192.0.2.1", "uid": "u", "resourceVersion": "7"},
        "spec": {"address": "192.0.2.1", "advertisements": [rule], "pool": "p", "externalTrafficPolicy": "Local",
                 "services": [{"namespace": "default", "name": "web", "uid": "s"}]},
        "status": {"node": "n1", "interface": "eth0", "since": "2026-01-01T00:00:00Z", "transitions": 2, "conditions": []},
    });
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"a": "b"}}, "spec": {}});
    let speaker = json!({
        "metadata": {"name": "n1"}, "spec": {"nodeName": "n1"},
        "status": {"version": "1", "warnings": [], "segments": [
            {"interface": "eth0", "macAddress": "02:00:5e:10:00:01", "prefixes": ["192.0.2.0/24"], "defaultRoute": true, "peers": 1},
        ]},
    });
    let slice = json!({
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n1"}],
    });
    View {
        vips: vec![Vip::reduce(serde_json::from_value(vip).unwrap()).unwrap()],
        nodes: vec![Node::reduce(serde_json::from_value(node).unwrap(), false)],
        speakers: vec![Speaker::reduce(serde_json::from_value(speaker).unwrap(), "n1")],
        slices: vec![Slice::reduce(serde_json::from_value(slice).unwrap()).unwrap()],
        covered: BTreeSet::from([ServiceName { namespace: "default".to_owned(), name: "web".to_owned() }]),
        keys: Some(Keys::new(vec![ByteString(vec![1; 32])]).unwrap()),
    }
}

fn dir() -> (TempDir, StateDir) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = StateDir::open(temporary.path()).unwrap();
    (temporary, dir)
}

#[test]
fn written_state_is_read() {
    let (_temporary, dir) = dir();
    assert_eq!((dir.claims(), dir.view()), (None, None));
    dir.write(Name::Claims, &claims(3)).unwrap();
    dir.write(Name::View, &view()).unwrap();
    assert_eq!(dir.claims(), Some(Saved { content: claims(3), same_boot: true }));
    assert_eq!(dir.view(), Some(Saved { content: view(), same_boot: true }));
}

#[test]
fn state_of_another_boot_is_marked() {
    let (_temporary, dir) = dir();
    StateDir { boot: "another".to_owned(), ..dir.clone() }.write(Name::Claims, &claims(3)).unwrap();
    assert_eq!(dir.claims(), Some(Saved { content: claims(3), same_boot: false }));
}

#[test]
fn unknown_boot_counts_as_another() {
    let (_temporary, dir) = dir();
    let unknown = StateDir { boot: String::new(), ..dir };
    unknown.write(Name::Claims, &claims(3)).unwrap();
    assert_eq!(unknown.claims(), Some(Saved { content: claims(3), same_boot: false }));
}

#[test_case(b""; "empty")]
#[test_case(b"{\"format\":1,\"boot\":\"b\",\"content\":{\"eth0\""; "cut off")]
#[test_case(b"{\"format\":2,\"boot\":\"b\",\"content\":{}}"; "a newer format")]
#[test_case(b"{\"format\":2}"; "a newer format with nothing that this build knows")]
#[test_case(b"{\"format\":1,\"boot\":\"b\",\"content\":[]}"; "another content")]
#[test_case(b"\xff\xfe"; "not a text")]
fn unreadable_file_counts_as_absent(bytes: &[u8]) {
    let (temporary, dir) = dir();
    fs::write(temporary.path().join("claims.json"), bytes).unwrap();
    assert_eq!(dir.claims(), None);
    dir.write(Name::Claims, &claims(1)).unwrap();
    assert_eq!(dir.claims().map(|saved| saved.content), Some(claims(1)), "and is overwritten");
}

/// Adds a field that this build does not know.
fn add_field(object: &mut Value) {
    let before = object.as_object_mut().unwrap().insert("ofALaterBuild".to_owned(), json!({"a": [1, null]}));
    assert_eq!(before, None);
}

#[test]
fn unknown_fields_of_a_later_build_are_ignored() {
    let (temporary, dir) = dir();
    dir.write(Name::Claims, &claims(3)).unwrap();
    dir.write(Name::View, &view()).unwrap();
    for (name, kept) in [("claims.json", "/content/eth0"), ("view.json", "/content")] {
        let path = temporary.path().join(name);
        let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let fields = file.pointer_mut(kept).unwrap();
        add_field(fields);
        let lists = fields.as_object_mut().unwrap().values_mut().filter_map(Value::as_array_mut);
        lists.flatten().filter(|item| item.is_object()).for_each(add_field);
        add_field(&mut file);
        fs::write(&path, file.to_string()).unwrap();
    }
    assert_eq!(dir.claims().map(|saved| saved.content), Some(claims(3)));
    assert_eq!(dir.view().map(|saved| saved.content), Some(view()));
}

#[test]
fn claim_with_a_reason_of_a_later_build_is_read() {
    let (temporary, dir) = dir();
    dir.write(Name::Claims, &claims(3)).unwrap();
    let path = temporary.path().join("claims.json");
    let mut file: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let reason = &mut file["content"]["eth0"]["claims"][0]["reason"];
    assert_eq!(*reason, json!(Reason::Dead.code()), "as on the wire");
    *reason = json!(200);
    fs::write(&path, file.to_string()).unwrap();
    assert_eq!(dir.claims().unwrap().content["eth0"].claims[0].reason, Reason::Later(200));
}

#[test]
fn newer_format_is_refused_in_a_sentence() {
    let refused = decode::<Claims>(b"{\"format\":2}", "b").unwrap_err().to_string();
    assert_eq!(refused, "it is of format 2, and this build reads 1: another build wrote it");
}

#[test]
fn files_are_private_and_leave_no_others_behind() {
    let (temporary, dir) = dir();
    // A run that was killed while it wrote left this.
    fs::write(temporary.path().join("view.new"), "half").unwrap();
    dir.write(Name::View, &view()).unwrap();
    let mode = fs::metadata(temporary.path().join("view.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["view.json"]);
}

#[test]
fn missing_directory_is_not_opened() {
    let (temporary, _) = dir();
    assert!(StateDir::open(&temporary.path().join("missing")).is_none());
}

/// The directory's size in the manifest has to hold the files of 10,000 addresses with `externalTrafficPolicy: Local`
/// among 100 nodes, all of them claimed here. Two copies of a file exist while one replaces the other.
#[test]
fn ten_thousand_addresses_fit_into_the_directory() {
    let addresses: Vec<_> = (0..10_000_u16).map(|n| [[10, 1], n.to_be_bytes()].concat()).collect();
    let address = |bytes: &Vec<u8>| format!("{}.{}.{}.{}", bytes[0], bytes[1], bytes[2], bytes[3]);
    let rule = json!({"name": "default", "nodeSelectors": [{"matchLabels": {"node-role.kubernetes.io/edge": ""}}],
                      "interfaces": ["eth*"], "preferredNodeSelectors": [], "failback": "Never", "cover": true});
    let uid = "0b0ae1cd-2f2e-4bb6-9d0c-7c7a3d9a8a11";
    let vip = |address: String| {
        let condition = json!({"type": "Announced", "status": "True", "reason": "Announcing", "observedGeneration": 3,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "node worker-017 announces the address on eth0 with 02:00:5e:10:00:01"});
        let object = json!({
            "metadata": {"name": address, "uid": uid, "resourceVersion": "123456789", "generation": 3,
                         "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"address": address, "advertisements": [rule], "pool": "p", "externalTrafficPolicy": "Local",
                     "homeNode": "worker-017", "healthCheckNodePort": 30123,
                     "services": [{"namespace": "production", "name": format!("web-{address}"), "uid": uid}]},
            "status": {"node": "worker-017", "interface": "eth0", "macAddress": "02:00:5e:10:00:01",
                       "since": "2026-01-01T00:00:00Z", "firstAnnounced": "2026-01-01T00:00:00Z", "transitions": 12,
                       "conditions": [condition]},
        });
        Vip::reduce(serde_json::from_value(object).unwrap()).unwrap()
    };
    let slice = |address: String| {
        let endpoints: Vec<_> =
            (0..4).map(|n| json!({"addresses": ["10.0.0.1"], "nodeName": format!("worker-{n:03}")})).collect();
        let object = json!({"metadata": {"name": format!("web-{address}-abcde"), "namespace": "production",
                             "labels": {"kubernetes.io/service-name": format!("web-{address}")}},
                            "addressType": "IPv4", "endpoints": endpoints});
        Slice::reduce(serde_json::from_value(object).unwrap()).unwrap()
    };
    let labels: serde_json::Map<_, _> =
        (0..60).map(|n| (format!("feature.node.kubernetes.io/cpu-feature.{n}"), json!("true"))).collect();
    let node = |n: u32| {
        let object = json!({"apiVersion": "v1", "kind": "Node", "spec": {},
                            "metadata": {"name": format!("worker-{n:03}"), "uid": uid, "labels": labels}});
        Node::reduce(serde_json::from_value(object).unwrap(), false)
    };
    let slices: Vec<_> = addresses.iter().map(address).map(slice).collect();
    let view = View {
        vips: addresses.iter().map(address).map(vip).collect(),
        nodes: (0..100).map(node).collect(),
        speakers: vec![],
        covered: slices.iter().map(|slice| slice.service.clone()).collect(),
        slices,
        keys: None,
    };
    let claim = |bytes: &Vec<u8>| Claim { address: address(bytes).parse().unwrap(), ..claims(7)["eth0"].claims[0] };
    let floor = |bytes: &Vec<u8>| (address(bytes).parse().unwrap(), Birth(1_700_000_000), Epoch(7));
    let state = SavedState {
        claims: addresses.iter().map(claim).collect(),
        floors: addresses.iter().map(floor).collect(),
        ..SavedState::default()
    };
    let (temporary, dir) = dir();
    dir.write(Name::View, &view).unwrap();
    dir.write(Name::Claims, &Claims::from([("eth0".to_owned(), state)])).unwrap();
    let size = |name: Name| fs::metadata(temporary.path().join(name.file())).unwrap().len();
    let [claims, view] = Name::ALL.map(size);
    let manifest = include_str!("../../../deploy/herald/speaker.yaml");
    let (_, limit) = manifest.split_once("sizeLimit: ").unwrap();
    let (mebibytes, _) = limit.split_once("Mi").unwrap();
    let limit: u64 = mebibytes.parse::<u64>().unwrap() << 20;
    let needed = 2 * (claims + view);
    assert!(needed <= limit, "claims {claims}, view {view}: {needed} bytes needed, {limit} given");
    assert!(needed > limit / 2, "claims {claims}, view {view}: half of {limit} would do");
}

#[tokio::test]
async fn failed_write_is_marked_and_leaves_no_file_behind() {
    let (temporary, dir) = dir();
    // The new file cannot take the place of a directory that is not empty.
    fs::create_dir_all(temporary.path().join("view.json/in-the-way")).unwrap();
    let (sender, receiver) = watch::channel(Arc::new(View::default()));
    let keeping = tokio::spawn(dir.clone().keep_view(receiver));
    sender.send_replace(Arc::new(view()));
    drop(sender);
    keeping.await.unwrap();
    assert!(dir.is_failing(Name::View) && !dir.is_failing(Name::Claims));
    assert!(!temporary.path().join("view.new").exists());
    fs::remove_dir_all(temporary.path().join("view.json")).unwrap();
    let (sender, receiver) = watch::channel(Arc::new(View::default()));
    let keeping = tokio::spawn(dir.clone().keep_view(receiver));
    sender.send_replace(Arc::new(view()));
    drop(sender);
    keeping.await.unwrap();
    assert!(!dir.is_failing(Name::View));
}

#[tokio::test]
async fn last_value_is_always_written() {
    let (_temporary, dir) = dir();
    let (sender, receiver) = watch::channel(Arc::new(Claims::new()));
    let keeping = tokio::spawn(dir.clone().keep_claims(receiver));
    for epoch in 1..=100 {
        sender.send_replace(Arc::new(claims(epoch)));
        tokio::task::yield_now().await;
    }
    drop(sender);
    keeping.await.unwrap();
    assert_eq!(dir.claims().map(|saved| saved.content), Some(claims(100)));
}

#[tokio::test(start_paused = true)]
async fn claims_are_written_at_once_and_then_once_in_20_ms() {
    let (temporary, dir) = dir();
    let (sender, receiver) = watch::channel(Arc::new(Claims::new()));
    let begun = Instant::now();
    let keeping = tokio::spawn(dir.clone().keep_claims(receiver));
    for (epoch, at_least) in [(1, Duration::ZERO), (2, CLAIMS_PERIOD), (3, CLAIMS_PERIOD * 2)] {
        sender.send_replace(Arc::new(claims(epoch)));
        while dir.claims().is_none_or(|saved| saved.content != claims(epoch)) {
            tokio::task::yield_now().await;
            if begun.elapsed() < at_least {
                // Only the writer's own clock ends the wait: time stands still while a task is busy.
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(begun.elapsed(), at_least, "epoch {epoch}");
    }
    drop(sender);
    keeping.await.unwrap();
    drop(temporary);
}

#[tokio::test]
async fn vanished_directory_does_not_end_the_task() {
    let (temporary, dir) = dir();
    let (sender, receiver) = watch::channel(Arc::new(Claims::new()));
    let keeping = tokio::spawn(dir.keep_claims(receiver));
    temporary.close().unwrap();
    sender.send_replace(Arc::new(claims(1)));
    drop(sender);
    keeping.await.unwrap();
}
