use std::os::unix::fs::PermissionsExt;

use herald_segment::claim::{Birth, Claim, ClaimKey, Epoch, Reason};
use k8s_openapi::ByteString;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_case::test_case;

use super::*;

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
    Claims::from([("eth0".to_owned(), SavedState { claims: vec![claim], floors })])
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
fn what_is_written_is_read() {
    let (_temporary, dir) = dir();
    assert_eq!((dir.claims(), dir.view()), (None, None));
    dir.write(Name::Claims, &claims(3)).unwrap();
    dir.write(Name::View, &view()).unwrap();
    assert_eq!(dir.claims(), Some(Saved { content: claims(3), same_boot: true }));
    assert_eq!(dir.view(), Some(Saved { content: view(), same_boot: true }));
}

#[test]
fn another_boot_is_told() {
    let (_temporary, dir) = dir();
    StateDir { boot: "another".to_owned(), ..dir.clone() }.write(Name::Claims, &claims(3)).unwrap();
    assert_eq!(dir.claims(), Some(Saved { content: claims(3), same_boot: false }));
}

#[test]
fn an_unknown_boot_is_another() {
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
#[test_case(b"\xff\xfe"; "no text")]
fn what_cannot_be_read_is_absent(bytes: &[u8]) {
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
fn reason_of_a_later_build_spoils_no_claim() {
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
fn files_are_for_the_speaker_alone_and_leave_nothing_beside_them() {
    let (temporary, dir) = dir();
    // Of a run that was killed while it wrote.
    fs::write(temporary.path().join("view.new"), "half").unwrap();
    dir.write(Name::View, &view()).unwrap();
    let mode = fs::metadata(temporary.path().join("view.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let names: Vec<_> = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["view.json"]);
}

#[test]
fn no_directory_no_state() {
    let (temporary, _) = dir();
    assert!(StateDir::open(&temporary.path().join("missing")).is_none());
}

#[tokio::test]
async fn the_last_value_is_always_written() {
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
async fn writes_at_once_and_then_once_in_20_ms() {
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
async fn a_directory_that_vanishes_ends_nothing() {
    let (temporary, dir) = dir();
    let (sender, receiver) = watch::channel(Arc::new(Claims::new()));
    let keeping = tokio::spawn(dir.keep_claims(receiver));
    temporary.close().unwrap();
    sender.send_replace(Arc::new(claims(1)));
    drop(sender);
    keeping.await.unwrap();
}
