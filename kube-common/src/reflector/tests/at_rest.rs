//! The cost of a quiet watch, and its signs of life.

use super::*;

/// The first pause after a break, plus the time that the test's own calls take.
const PAUSE: Duration = Duration::from_secs(1);

/// Returns the configuration of a program that needs only a living API server.
fn restful() -> WatchConfig {
    WatchConfig { unproven: true, pace: Pace::RESTFUL, ..WatchConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn restful_watch_that_ends_in_time_is_progress_without_a_further_request() {
    let mut server = start_with(restful());
    server.list(&["a"]).await;
    let call = server.call().await;
    assert!((280..=300).contains(&call.seconds()), "{}", call.seconds());
    let seconds = call.seconds();
    let watch = call.watch();
    server.steps().await;
    sleep(Duration::from_secs(seconds.into())).await;
    drop(watch);
    let next = server.call().await;
    assert_eq!((next.parameter("watch"), next.parameter("resourceVersion")), (Some("true"), Some("10")));
    assert_eq!(server.steps().await, ["current"]);
}

#[tokio::test(start_paused = true)]
async fn bookmark_of_a_restful_watch_is_progress_without_a_further_request() {
    let mut server = start_with(restful());
    server.list(&[]).await;
    let watch = server.watch("10").await;
    server.steps().await;
    for _ in 0..4 {
        sleep(Duration::from_secs(62)).await;
        watch.bookmark("11");
        assert_eq!(server.steps().await, ["current"]);
        assert!(server.is_idle());
    }
}

/// A load balancer closes connections on which nothing comes.
#[tokio::test(start_paused = true)]
async fn quiet_watch_that_is_closed_on_the_way_goes_on_at_once() {
    let mut server = start_with(restful());
    server.list(&["a"]).await;
    for _ in 0..10 {
        let call = server.call().await;
        assert!(call.seconds() >= 280, "{}", call.seconds());
        let watch = call.watch();
        server.steps().await;
        sleep(Duration::from_secs(35)).await;
        drop(watch);
        assert_eq!(server.steps().await, ["current"]);
    }
    // A watch that is closed as soon as it has begun counts as broken.
    let watch = server.watch("10").await;
    sleep(Duration::from_secs(5)).await;
    drop(watch);
    assert_eq!(server.steps().await, ["broken"]);
}

/// The server of a watch, or a proxy on the way, hangs while its kernel acknowledges the probes.
#[tokio::test(start_paused = true)]
async fn silent_watch_is_found() {
    let mut server = start_with(restful());
    server.list(&[]).await;
    let begun = Instant::now();
    let _silent = server.watch("10").await;
    let call = server.call().await;
    let found = begun.elapsed();
    assert!(found > Duration::from_secs(285) && found <= Duration::from_secs(305) + PAUSE, "{found:?}");
    assert_eq!(call.seconds(), 5);
    // A quiet kind has no bookmarks; a kind that has bookmarks gets one a minute.
    let watch = call.watch();
    watch.bookmark("11");
    sleep(Duration::from_secs(5)).await;
    drop(watch);
    let watch = server.watch("11").await;
    watch.bookmark("12");
    server.steps().await;
    sleep(Duration::from_secs(62)).await;
    watch.bookmark("13");
    watch.write(event("ADDED", "a", "14"));
    assert_eq!(server.steps().await, ["current", "+a", "current"]);
    let begun = Instant::now();
    server.call().await;
    let found = begun.elapsed();
    assert!(found > BOOKMARK_PATIENCE - PAUSE && found <= BOOKMARK_PATIENCE + PAUSE, "{found:?}");
    assert_eq!(server.steps().await[0], "broken");
}

/// Returns the number of requests of one watch in an hour in which nothing happens and the API server has nothing new
/// to send.
async fn requests_in_a_quiet_hour(config: WatchConfig) -> u32 {
    let mut server = start_with(config);
    server.list(&["a"]).await;
    let (mut requests, mut watch) = (0, None::<Watch>);
    let end = Instant::now() + Duration::from_secs(3600);
    let (mut closes, mut next_bookmark) = (end, end);
    while Instant::now() < end {
        tokio::select! {
            call = server.calls.recv() => {
                requests += 1;
                let call = call.unwrap();
                if call.parameter("watch").is_some() {
                    closes = Instant::now() + Duration::from_secs(call.seconds().into());
                    next_bookmark = Instant::now();
                    watch = Some(call.watch());
                } else {
                    call.page(&["a"], None);
                }
            }
            () = tokio::time::sleep_until(next_bookmark) => {
                watch.as_ref().unwrap().bookmark("10");
                next_bookmark += Duration::from_secs(60);
            }
            () = tokio::time::sleep_until(closes) => {
                drop(watch.take());
                (closes, next_bookmark) = (end + Duration::from_secs(1), end + Duration::from_secs(1));
            }
            _ = server.steps.recv() => {}
        }
    }
    requests
}

/// A speaker at rest asks the API server less than once in two seconds: four watches whose progress matters
/// (VirtualIPs, Nodes, SpeakerStatuses, and EndpointSlices where a Service is Local), and the one on the Secret.
#[tokio::test(start_paused = true)]
async fn speaker_at_rest_asks_less_than_once_in_two_seconds() {
    let proven = requests_in_a_quiet_hour(WatchConfig::default()).await;
    let unproven = requests_in_a_quiet_hour(WatchConfig { unproven: true, ..WatchConfig::default() }).await;
    let all = 4 * proven + unproven;
    assert!(all <= 3600 / 2, "{all} requests in an hour: 4 x {proven} + {unproven}");
    assert!(all >= 3600 / 3, "{all} requests in an hour prove nothing");
}

/// A controller at rest asks the API server for its nine kinds as rarely as with kube-rs' own watcher, whose watches
/// last 290 s.
#[tokio::test(start_paused = true)]
async fn restful_watch_asks_as_rarely_as_the_watcher_of_kube_rs() {
    let asked = requests_in_a_quiet_hour(restful()).await;
    assert!((12..=13).contains(&asked), "{asked} requests in an hour, and 3600 / 290 = 12.4");
}
