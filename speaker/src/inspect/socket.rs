//! The two ends of the socket by which a running speaker is inspected.

use std::{
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use herald_telemetry::query::{Querier, Unanswered};

use super::{InspectArgs, ParseQuestionError, Question, Report};
use crate::readiness::Health;

/// The socket's name in the state directory.
const SOCKET: &str = "inspect.sock";

/// The longest question, in bytes.
const LONGEST_QUESTION: u64 = 16;

/// Number of requests in progress at most. A client that connects and asks nothing does not delay others; a client that
/// makes more than this can only do so on purpose.
const AT_ONCE: usize = 8;

/// Time within which a client has to ask and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The reason why a running speaker cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No speaker listens.
    #[error("cannot ask a speaker at {path}: {error}; check that it runs here with this --state-dir")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// The connection broke off.
    #[error("the speaker closed the connection: {0}")]
    Broken(#[source] io::Error),
    /// The speaker takes too long.
    #[error("the speaker has not answered within {PATIENCE:?}: it is stuck or stopped")]
    Slow,
    /// The answer is empty.
    #[error("the speaker's answer is empty; its log says why")]
    Empty,
}

/// The reason why a request got no report.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Question(#[from] ParseQuestionError),
    #[error("{0}")]
    Unanswered(#[from] Unanswered),
    #[error("{0}")]
    Render(#[from] serde_json::Error),
    #[error("the request took longer than {PATIENCE:?}")]
    Slow,
}

/// Opens the socket in a state directory, in the place of the one that an earlier run left there. Only its owner may
/// connect.
///
/// # Errors
/// If the directory is missing or cannot be written to.
pub fn listen(state_dir: &Path) -> io::Result<UnixListener> {
    let path = state_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The sources of the answers.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The source of the report.
    pub report: Querier<Report>,
    /// The source of the facts that the kubelet's probes ask for.
    pub health: Querier<Health>,
}

/// Answers requests until the future is dropped.
pub async fn serve(listener: UnixListener, sources: Sources) {
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() >= AT_ONCE {
            under_way.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = sources.clone();
                under_way.spawn(async move {
                    let answered = timeout(PATIENCE, answer(stream, &sources)).await.unwrap_or(Err(Refused::Slow));
                    if let Err(error) = answered {
                        tracing::warn!(%error, "a request to inspect this speaker failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a request to inspect this speaker");
                // The process may be out of file descriptors: accept then fails again at once, and there is nothing to
                // wait for.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        while under_way.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: UnixStream, sources: &Sources) -> Result<(), Refused> {
    let mut question = String::new();
    let (reading, mut writing) = stream.split();
    reading.take(LONGEST_QUESTION).read_to_string(&mut question).await?;
    let text = match question.trim_end().parse()? {
        Question::Report(format) => sources.report.ask().await?.render(format)?,
        Question::Health => serde_json::to_string(&sources.health.ask().await?)?,
    };
    writing.write_all(text.as_bytes()).await?;
    Ok(writing.shutdown().await?)
}

impl InspectArgs {
    /// Asks the running speaker.
    ///
    /// # Errors
    /// If no speaker runs, or it does not answer.
    pub async fn run(&self) -> Result<String, InspectError> {
        ask(&self.state_dir, Question::Report(self.output)).await
    }
}

/// Asks the speaker that keeps its state in a directory.
///
/// # Errors
/// If no speaker runs, or it does not answer.
pub async fn ask(state_dir: &Path, question: Question) -> Result<String, InspectError> {
    let path = state_dir.join(SOCKET);
    let connected = UnixStream::connect(&path).await;
    let mut stream = connected.map_err(|error| InspectError::Connect { path, error })?;
    let exchanged = timeout(PATIENCE, exchange(&mut stream, question)).await;
    let answer = exchanged.map_err(|_| InspectError::Slow)?.map_err(InspectError::Broken)?;
    if answer.is_empty() { Err(InspectError::Empty) } else { Ok(answer) }
}

async fn exchange(stream: &mut UnixStream, question: Question) -> io::Result<String> {
    stream.write_all(question.word().as_bytes()).await?;
    // The end of the stream ends the question.
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::{CheckArgs, CheckError, What},
        inspect::Format,
    };
    use herald_telemetry::query;

    fn report() -> Report {
        Report {
            version: "0.1.0".to_owned(),
            node: "node1".to_owned(),
            uptime_ms: 5,
            segments: vec![],
            links: vec![],
            links_left_out: 0,
        }
    }

    /// Returns the result of `client` with a speaker that listens in a directory.
    async fn with_speaker<T>(dir: &Path, client: impl Future<Output = T>) -> T {
        with_health(dir, Some(health()), client).await
    }

    /// Returns the result of `client` with a speaker that gives this health; `None`: its loop is stuck.
    async fn with_health<T>(dir: &Path, health: Option<Health>, client: impl Future<Output = T>) -> T {
        let listener = listen(dir).unwrap();
        let (report_source, mut asked) = query::channel();
        let (health_source, mut asked_for_health) = query::channel();
        let sources = Sources { report: report_source, health: health_source };
        let answering = async {
            while let Some(reply) = asked.recv().await {
                reply.send(report()).unwrap();
            }
        };
        let answering_for_health = async {
            let mut unanswered = Vec::new();
            while let Some(reply) = asked_for_health.recv().await {
                match &health {
                    Some(health) => reply.send(health.clone()).unwrap(),
                    None => unanswered.push(reply),
                }
            }
        };
        tokio::select! {
            result = client => result,
            () = serve(listener, sources) => unreachable!("it serves for ever"),
            () = answering => unreachable!("the server asks for ever"),
            () = answering_for_health => unreachable!("the server asks for ever"),
        }
    }

    fn health() -> Health {
        Health {
            has_key: true,
            key_error: None,
            interfaces_listed: true,
            unlisted: vec![],
            segments: 1,
            joining: vec![],
        }
    }

    fn check(dir: &Path, what: What) -> CheckArgs {
        CheckArgs { what, state_dir: dir.to_owned() }
    }

    #[tokio::test]
    async fn speaker_that_takes_part_is_live_and_ready() {
        let dir = tempfile::tempdir().unwrap();
        for what in [What::Live, What::Ready] {
            let said = with_speaker(dir.path(), check(dir.path(), what).run()).await;
            assert!(said.is_ok(), "{said:?}");
        }
    }

    #[tokio::test]
    async fn speaker_without_a_key_is_live_and_not_ready() {
        let dir = tempfile::tempdir().unwrap();
        let mute = Health { has_key: false, ..health() };
        let live = with_health(dir.path(), Some(mute.clone()), check(dir.path(), What::Live).run()).await;
        assert!(live.is_ok(), "{live:?}");
        let ready = with_health(dir.path(), Some(mute), check(dir.path(), What::Ready).run()).await;
        assert!(matches!(ready, Err(CheckError::NotReady(_))), "{ready:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn speaker_whose_loop_is_stuck_is_neither() {
        let dir = tempfile::tempdir().unwrap();
        for what in [What::Live, What::Ready] {
            let said = with_health(dir.path(), None, check(dir.path(), what).run()).await;
            assert!(matches!(said, Err(CheckError::Stuck | CheckError::Unasked(_))), "{said:?}");
        }
    }

    #[tokio::test]
    async fn client_that_asks_nothing_does_not_delay_others() {
        let dir = tempfile::tempdir().unwrap();
        let client = async {
            let silent = UnixStream::connect(dir.path().join(SOCKET)).await.unwrap();
            let said = check(dir.path(), What::Live).run().await;
            drop(silent);
            said
        };
        let said = with_speaker(dir.path(), client).await;
        assert!(said.is_ok(), "{said:?}");
    }

    fn args(dir: &Path, output: Format) -> InspectArgs {
        InspectArgs { state_dir: dir.to_owned(), output }
    }

    #[tokio::test]
    async fn running_speaker_reports_in_either_format() {
        let dir = tempfile::tempdir().unwrap();
        for format in [Format::Table, Format::Json] {
            // The socket of the first round is still there on the second.
            let text = with_speaker(dir.path(), args(dir.path(), format).run()).await.unwrap();
            assert_eq!(text, report().render(format).unwrap());
        }
    }

    #[tokio::test]
    async fn unknown_question_gets_no_answer_and_the_next_one_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        let client = async {
            for question in ["", "yaml", &"x".repeat(1000)] {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                stream.write_all(question.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                // If a question was not read to its end, the kernel resets the connection.
                let answered = stream.read_u8().await.map_err(|error| error.kind());
                assert!(matches!(answered, Err(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)));
            }
            args(dir.path(), Format::Table).run().await
        };
        assert!(with_speaker(dir.path(), client).await.unwrap().starts_with("node1: "));
    }

    #[tokio::test]
    async fn only_the_owner_of_the_socket_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let _listener = listen(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn error_without_a_speaker_names_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let error = args(dir.path(), Format::Table).run().await.unwrap_err();
        assert!(error.to_string().contains(SOCKET), "{error}");
    }
}
