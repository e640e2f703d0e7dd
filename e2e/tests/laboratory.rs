//! Tests that the laboratory leaves nothing behind, however it ends. They need root and are run by name.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use herald_lab::cluster::{Lab, LabId, Leftovers, Paths, ProcessId, Record, Spec};
use herald_lab::progress::Progress;
use nix::sys::signal::Signal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_herald-lab");

/// Upper bound of a wait, for a busy machine; as a rule each ends within seconds.
const PATIENCE: Duration = Duration::from_secs(120);

fn id(name: &str) -> LabId {
    // The ID contains the process ID so that two runs of the suite do not collide.
    format!("{name}{}", std::process::id()).parse().unwrap()
}

fn spec(id: &LabId) -> Spec {
    Spec { id: id.clone(), nodes: 1, ..Spec::default() }
}

fn herald_lab(id: &LabId, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["--id", id.as_str()]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts `up` and returns while it works, once the first host runs.
fn half_way_up(id: &LabId) -> Child {
    let child = herald_lab(id, &["up", "--nodes", "1"]).spawn().unwrap();
    wait_until("the first host to run", || {
        Record::read(&Paths::of(id)).unwrap().is_some_and(|record| !record.hosts.is_empty())
    });
    child
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    Progress::quiet().wait_for(what, PATIENCE, || Ok(holds().then_some(()))).unwrap();
}

fn process(child: &Child) -> ProcessId {
    ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap()
}

fn nothing_is_left_of(id: &LabId) -> bool {
    Leftovers::of(id).unwrap().is_empty()
}

#[test]
fn interrupted_up_takes_the_lab_down() {
    let id = id("int");
    let mut up = half_way_up(&id);
    process(&up).signal(Signal::SIGINT).unwrap();
    assert!(!up.wait().unwrap().success());
    assert_eq!(Leftovers::of(&id).unwrap(), Leftovers::default());
}

#[test]
fn killed_up_is_cleared_by_its_warden() {
    let id = id("kill");
    let mut up = half_way_up(&id);
    up.kill().unwrap();
    up.wait().unwrap();
    wait_until("the warden to clear the lab", || nothing_is_left_of(&id));
}

#[test]
fn abandoned_lab_is_cleared_by_the_next_up() {
    let crashed = id("crash");
    let mut up = half_way_up(&crashed);
    // The warden is killed first, so that it does not see the end of its owner.
    let warden = Record::read(&Paths::of(&crashed)).unwrap().and_then(|record| record.warden).unwrap();
    warden.signal(Signal::SIGKILL).unwrap();
    up.kill().unwrap();
    up.wait().unwrap();
    assert!(!nothing_is_left_of(&crashed));

    let next = id("next");
    let lab = Lab::up(&spec(&next), &Progress::quiet()).unwrap();
    assert_eq!(Leftovers::of(&crashed).unwrap(), Leftovers::default());
    lab.down().unwrap();
    assert_eq!(Leftovers::of(&next).unwrap(), Leftovers::default());
}

#[test]
fn two_labs_run_at_once_and_end_with_their_owner() {
    let (one, two) = (id("one"), id("two"));
    let first = Lab::up(&spec(&one), &Progress::quiet()).unwrap();
    let second = Lab::up(&spec(&two), &Progress::quiet()).unwrap();
    for lab in [&first, &second] {
        let nodes = lab.kubectl(["get", "nodes", "-o", "name"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&nodes.stdout), "node/node1\n");
    }
    drop(first);
    assert_eq!(Leftovers::of(&one).unwrap(), Leftovers::default());
    assert!(second.kubectl(["get", "nodes"]).output().unwrap().status.success());
    drop(second);
    assert_eq!(Leftovers::of(&two).unwrap(), Leftovers::default());
}
