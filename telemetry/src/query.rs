//! Queries to the loop that owns the program's state: the loop answers each with a value when it comes round.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Maximum of queries that wait for the loop; the next one waits for a place.
const WAITING: usize = 8;

/// Timeout of a query. The loop answers within a millisecond; a loop that takes longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// The end that sends queries.
#[derive(Debug)]
pub struct Querier<T>(mpsc::Sender<oneshot::Sender<T>>);

impl<T> Clone for Querier<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The end that receives queries. The loop answers each by sending a value; a dropped query is refused.
pub type Queries<T> = mpsc::Receiver<oneshot::Sender<T>>;

/// The query was not answered.
#[derive(Debug, thiserror::Error)]
#[error("the program does not answer: its loop is stuck or has ended")]
pub struct Unanswered;

/// Returns both ends.
pub fn channel<T>() -> (Querier<T>, Queries<T>) {
    let (asking, asked) = mpsc::channel(WAITING);
    (Querier(asking), asked)
}

impl<T> Querier<T> {
    /// Sends a query, and waits for the answer.
    ///
    /// # Errors
    /// If there is no answer within two seconds.
    pub async fn ask(&self) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(reply).await.map_err(|_| Unanswered)?;
            answer.await.map_err(|_| Unanswered)
        };
        tokio::time::timeout(PATIENCE, asked).await.map_err(|_| Unanswered)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn query_is_answered_by_the_other_end() {
        let (ask, mut asked) = channel();
        let answering = async { asked.recv().await.unwrap().send(7).unwrap() };
        assert_eq!(tokio::join!(ask.ask(), answering).0.unwrap(), 7);
    }

    #[tokio::test]
    async fn dropped_query_is_refused_at_once() {
        let (ask, mut asked) = channel::<u8>();
        let dropping = async { drop(asked.recv().await) };
        assert!(tokio::join!(ask.ask(), dropping).0.is_err());
        drop(asked);
        assert!(ask.ask().await.is_err());
    }
}
