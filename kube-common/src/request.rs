//! One request to the API server, and its outcome.

use std::time::Duration;

use kube::core::Status;
use tokio::time::timeout;

/// Timeout for a single object, or until a watch begins. The API server answers in milliseconds, and within 5 s where
/// one of its priority levels queues the request.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The reason why a request brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The API server refused the request.
    #[error("the API server refuses: {} ({})", .0.message, .0.code)]
    Refused(Box<Status>),
    /// The request did not reach the API server, or its answer cannot be read.
    // The text contains the chain of causes: kube's own is "ServiceError: client error (Connect)".
    #[error("{}", chain(.0))]
    Failed(#[source] kube::Error),
    /// The API server has not answered within this time.
    #[error("the API server has not answered for {0:?}")]
    Hung(Duration),
}

impl From<kube::Error> for RequestError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Failed(other),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Returns the answer, if it comes in time.
///
/// # Errors
/// If the API server refuses, cannot be reached, or has not answered for `patience`.
pub async fn answered<T>(
    patience: Duration,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, RequestError> {
    timeout(patience, request).await.map_err(|_| RequestError::Hung(patience))?.map_err(RequestError::from)
}
