use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

use super::*;

mod at_rest;

type Content = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// The API server, played by the test.
struct Server {
    calls: mpsc::UnboundedReceiver<Call>,
    steps: mpsc::Receiver<String>,
    following: JoinHandle<()>,
}

/// A request that waits for its answer.
struct Call {
    query: String,
    answer: oneshot::Sender<Response<Content>>,
}

/// A watch that is open. Dropped, it ends.
struct Watch(mpsc::UnboundedSender<String>);

fn start() -> Server {
    start_with(WatchConfig::default())
}

fn start_with(config: WatchConfig) -> Server {
    let (to_server, calls) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, answered) = oneshot::channel();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let sent = to_server.send(Call { query, answer }).is_ok();
        // A dropped answer appears to the client as a broken connection.
        async move {
            if sent { answered.await.map_err(|_| std::io::Error::other("reset")) } else { std::future::pending().await }
        }
    });
    let (out, steps) = mpsc::channel(100);
    let api = Api::<ConfigMap>::all(Client::new(service, "default"));
    let following = tokio::spawn(follow("ConfigMap", api, config, |step| vec![spell(step)], out));
    Server { calls, steps, following }
}

fn spell(step: Step<ConfigMap>) -> String {
    let name = |object: ConfigMap| object.metadata.name.unwrap();
    match step {
        Step::Listing => "listing".to_owned(),
        Step::Applied(object) => format!("+{}", name(object)),
        Step::Deleted(object) => format!("-{}", name(object)),
        Step::Listed => "listed".to_owned(),
        Step::Current => "current".to_owned(),
        Step::Broken => "broken".to_owned(),
    }
}

fn object(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "resourceVersion": version}})
}

fn event(kind: &str, name: &str, version: &str) -> String {
    json!({"type": kind, "object": object(name, version)}).to_string() + "\n"
}

fn status(code: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no", "reason": "No", "code": code})
}

impl Server {
    async fn call(&mut self) -> Call {
        self.calls.recv().await.unwrap()
    }

    /// Answers a listing with these objects, at version 10.
    async fn list(&mut self, names: &[&str]) {
        let call = self.call().await;
        assert_eq!(call.parameter("limit"), Some("500"));
        assert_eq!(call.parameter("resourceVersion"), None, "from a quorum");
        call.page(names, None);
    }

    /// Opens the requested watch, which has to start at this version.
    async fn watch(&mut self, version: &str) -> Watch {
        let call = self.call().await;
        assert_eq!(call.parameter("resourceVersion"), Some(version));
        call.watch()
    }

    /// Returns the steps that have been taken since the last call.
    async fn steps(&mut self) -> Vec<String> {
        // Time is paused: all that can happen has happened before the clock advances.
        sleep(Duration::from_millis(1)).await;
        let mut steps = Vec::new();
        while let Ok(step) = self.steps.try_recv() {
            steps.push(step);
        }
        steps
    }

    fn is_idle(&mut self) -> bool {
        self.calls.try_recv().is_err()
    }
}

impl Call {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }

    fn seconds(&self) -> u32 {
        self.parameter("timeoutSeconds").unwrap().parse().unwrap()
    }

    fn json(self, code: u16, value: &Value) {
        let body = Full::from(value.to_string()).boxed_unsync();
        self.answer.send(Response::builder().status(code).body(body).unwrap()).unwrap();
    }

    fn page(self, names: &[&str], next: Option<&str>) {
        let items: Vec<_> = names.iter().map(|name| object(name, "1")).collect();
        let metadata = json!({"resourceVersion": "10", "continue": next});
        self.json(200, &json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items}));
    }

    fn watch(self) -> Watch {
        assert_eq!(self.parameter("watch"), Some("true"));
        assert_eq!(self.parameter("allowWatchBookmarks"), Some("true"));
        let (lines, written) = mpsc::unbounded_channel::<String>();
        let frames = stream::unfold(written, |mut written| async {
            let line = written.recv().await?;
            Some((Ok(Frame::data(Bytes::from(line))), written))
        });
        self.answer.send(Response::new(StreamBody::new(frames).boxed_unsync())).unwrap();
        Watch(lines)
    }
}

impl Watch {
    fn write(&self, line: impl Into<String>) {
        self.0.send(line.into()).unwrap();
    }

    fn bookmark(&self, version: &str) {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": version}});
        self.write(json!({"type": "BOOKMARK", "object": object}).to_string() + "\n");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_page_by_page_and_watches_from_there() {
    let mut server = start();
    server.call().await.page(&["a", "b"], Some("more"));
    let second = server.call().await;
    assert_eq!(second.parameter("continue"), Some("more"));
    second.page(&["c"], None);
    let call = server.call().await;
    assert!((18..=22).contains(&call.seconds()), "{}", call.seconds());
    assert_eq!(call.parameter("resourceVersion"), Some("10"));
    let _watch = call.watch();
    assert_eq!(server.steps().await, ["listing", "+a", "+b", "+c", "listed", "current"]);
}

#[tokio::test(start_paused = true)]
async fn each_batch_of_events_is_progress() {
    let mut server = start();
    server.list(&["a"]).await;
    let watch = server.watch("10").await;
    server.steps().await;
    watch.write(event("ADDED", "b", "11") + &event("MODIFIED", "b", "12") + &event("DELETED", "a", "13"));
    assert_eq!(server.steps().await, ["+b", "+b", "-a", "current"]);
    watch.write(event("ADDED", "c", "14"));
    assert_eq!(server.steps().await, ["+c", "current"]);
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_is_progress_if_its_version_is_new_or_etcd_answers() {
    let mut server = start();
    server.list(&[]).await;
    let watch = server.watch("10").await;
    server.steps().await;
    watch.bookmark("11");
    assert_eq!(server.steps().await, ["current"]);
    watch.bookmark("11");
    assert!(server.steps().await.is_empty(), "the API server lives; does etcd?");
    let read = server.call().await;
    assert_eq!((read.parameter("limit"), read.parameter("resourceVersion")), (Some("1"), None));
    read.page(&["x"], None);
    assert_eq!(server.steps().await, ["current"]);
    watch.bookmark("11");
    server.call().await.json(500, &status(500));
    assert_eq!(server.steps().await, ["broken"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_time_goes_on_at_once_and_removes_nothing() {
    let mut server = start();
    server.list(&["a"]).await;
    let watch = server.watch("10").await;
    watch.bookmark("20");
    sleep(Duration::from_secs(18)).await;
    server.steps().await;
    drop(watch);
    let before = Instant::now();
    let watch = server.watch("20").await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    watch.write(event("ADDED", "b", "21"));
    assert_eq!(server.steps().await, ["+b", "current"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_time_without_a_bookmark_is_progress_if_etcd_answers() {
    let mut server = start();
    server.list(&["a"]).await;
    for events in [0, 1] {
        let watch = server.watch("10").await;
        for _ in 0..events {
            // The event is old by the time the watch ends.
            watch.write(event("MODIFIED", "a", "10"));
        }
        sleep(Duration::from_secs(18)).await;
        server.steps().await;
        drop(watch);
        let read = server.call().await;
        assert_eq!((read.parameter("limit"), read.parameter("resourceVersion")), (Some("1"), None));
        read.page(&["x"], None);
        assert_eq!(server.steps().await, ["current"], "{events} events");
    }
    // An unanswered read does not prove that the view is current.
    let watch = server.watch("10").await;
    sleep(Duration::from_secs(18)).await;
    drop(watch);
    server.call().await.json(500, &status(500));
    assert_eq!(server.steps().await, ["broken"]);
    // The end of a short watch also ends the broken state.
    let call = server.call().await;
    assert_eq!(call.seconds(), 5);
    let watch = call.watch();
    sleep(Duration::from_secs(5)).await;
    drop(watch);
    server.call().await.page(&["x"], None);
    assert_eq!(server.steps().await, ["current"]);
    assert!(server.call().await.seconds() >= 18);
}

#[tokio::test(start_paused = true)]
async fn only_a_bookmark_ends_a_break() {
    let mut server = start();
    server.list(&["a"]).await;
    let watch = server.watch("10").await;
    watch.write(event("ADDED", "b", "11"));
    server.steps().await;
    drop(watch);
    // Refused connections: the known objects stay.
    for _ in 0..5 {
        drop(server.call().await);
    }
    let call = server.call().await;
    assert_eq!(server.steps().await, ["broken"; 6]);
    assert_eq!((call.seconds(), call.parameter("resourceVersion")), (5, Some("11")));
    let watch = call.watch();
    watch.write(event("ADDED", "c", "12"));
    assert_eq!(server.steps().await, ["+c"], "perhaps the first of many");
    watch.bookmark("13");
    assert_eq!(server.steps().await, ["current"]);
    watch.write(event("ADDED", "d", "14"));
    assert_eq!(server.steps().await, ["+d", "current"]);
}

#[tokio::test(start_paused = true)]
async fn expired_version_is_listed_again() {
    let mut server = start();
    server.list(&["a", "b"]).await;
    server.call().await.json(410, &status(410));
    server.list(&["b"]).await;
    assert_eq!(
        server.steps().await,
        ["listing", "+a", "+b", "listed", "current", "broken", "listing", "+b", "listed", "current"]
    );
    let watch = server.watch("10").await;
    watch.write(json!({"type": "ERROR", "object": status(410)}).to_string() + "\n");
    server.list(&[]).await;
    assert_eq!(server.steps().await, ["broken", "listing", "listed", "current"]);
}

#[tokio::test(start_paused = true)]
async fn expired_page_starts_the_listing_again() {
    let mut server = start();
    server.call().await.page(&["a"], Some("more"));
    server.call().await.json(410, &status(410));
    server.list(&["b"]).await;
    assert_eq!(server.steps().await, ["listing", "+a", "broken", "listing", "+b", "listed", "current"]);
}

#[tokio::test(start_paused = true)]
async fn version_that_is_refused_three_times_is_listed_again() {
    let mut server = start();
    server.list(&["a"]).await;
    for _ in 0..3 {
        let call = server.call().await;
        assert_eq!(call.parameter("resourceVersion"), Some("10"));
        // "Too large resource version": etcd was restored from a backup.
        call.json(504, &status(504));
    }
    server.list(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_is_noticed() {
    let mut server = start();
    let begun = Instant::now();
    let _hung = server.call().await;
    let list = server.call().await;
    assert!((30..31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    list.page(&["a"], None);
    let begun = Instant::now();
    let _hung = server.call().await;
    let call = server.call().await;
    assert!((10..11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let _silent = call.watch();
    let call = server.call().await;
    assert!((10..11).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!((call.seconds(), call.parameter("resourceVersion")), (5, Some("10")));
    let steps = ["listing", "broken", "listing", "+a", "listed", "current", "broken", "broken"];
    assert_eq!(server.steps().await, steps);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_is_not_stormed() {
    let mut server = start();
    server.list(&["a"]).await;
    let begun = Instant::now();
    let mut watches = 0;
    while begun.elapsed() < Duration::from_secs(60) && watches <= 20 {
        drop(server.watch("10").await);
        watches += 1;
    }
    // Six waits, 0.2 s to 6.4 s, are 6.3 s to 12.6 s together; then one comes per 5 s to 10 s.
    assert!((10..=20).contains(&watches), "{watches}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everything_is_not_stormed() {
    let mut server = start();
    let begun = Instant::now();
    let mut lists = 0;
    while begun.elapsed() < Duration::from_secs(60) && lists <= 20 {
        server.call().await.json(403, &status(403));
        lists += 1;
    }
    assert!((10..=20).contains(&lists), "{lists}");
    let nothing_listed = |step: &String| step == "listing" || step == "broken";
    assert!(server.steps().await.iter().all(nothing_listed));
}

#[tokio::test(start_paused = true)]
async fn reflector_ends_when_its_receiver_is_dropped() {
    let mut server = start();
    server.list(&["a"]).await;
    let _watch = server.watch("10").await;
    server.steps().await;
    assert!(server.is_idle() && !server.following.is_finished());
    drop(server.steps);
    timeout(Duration::from_millis(1), server.following).await.unwrap().unwrap();
}

/// An API server before 1.33 does not know ServiceCIDR until it is updated.
#[tokio::test(start_paused = true)]
async fn kind_that_may_be_unknown_is_an_empty_one_and_asked_for_again_after_its_pause() {
    let mut server =
        start_with(WatchConfig { pause_if_unknown: Some(Duration::from_secs(600)), ..WatchConfig::default() });
    let begun = Instant::now();
    let mut lists = 0;
    while begun.elapsed() < Duration::from_secs(3600) {
        let call = server.call().await;
        assert_eq!(call.parameter("watch"), None);
        call.json(404, &status(404));
        assert_eq!(server.steps().await, ["listing", "listing", "listed", "current"]);
        lists += 1;
    }
    assert!((2..=7).contains(&lists), "{lists} in an hour");
    server.list(&["a"]).await;
    server.watch("10").await;
    assert_eq!(server.steps().await[..4], ["listing", "+a", "listed", "current"], "it was updated");
}

/// The program has no role for a kind that it can do without, perhaps for ever.
#[tokio::test(start_paused = true)]
async fn optional_kind_that_may_not_be_listed_is_asked_for_once_a_minute() {
    let config = WatchConfig { pause_if_unknown: Some(Duration::from_secs(600)), ..WatchConfig::default() };
    for (config, expected) in [(config, 58..=64), (WatchConfig::default(), 360..=800)] {
        let mut server = start_with(config);
        let begun = Instant::now();
        let mut lists = 0;
        while begun.elapsed() < Duration::from_secs(3600) {
            server.call().await.json(403, &status(403));
            assert_eq!(server.steps().await, ["listing", "broken"]);
            lists += 1;
        }
        assert!(expected.contains(&lists), "{lists} in an hour");
        server.list(&["a"]).await;
        server.watch("10").await;
        assert_eq!(server.steps().await[..4], ["listing", "+a", "listed", "current"], "the role was given");
    }
}

#[tokio::test(start_paused = true)]
async fn required_kind_does_not_count_as_empty() {
    let mut server = start();
    server.call().await.json(404, &status(404));
    let _again = server.call().await;
    assert_eq!(server.steps().await, ["listing", "broken", "listing"]);
}
