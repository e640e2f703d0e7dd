//! Questions to the loop that owns the machine: somebody asks, the loop answers with a value when it comes round.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Questions that wait: who asks more has to wait itself.
const WAITING: usize = 8;

/// The loop answers within a millisecond; one that has not after this is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks.
#[derive(Debug)]
pub struct Querier<T>(mpsc::Sender<oneshot::Sender<T>>);

impl<T> Clone for Querier<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Where the questions arrive. Each is to be answered by sending a value; a question dropped is one refused.
pub type Queries<T> = mpsc::Receiver<oneshot::Sender<T>>;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error("the program does not answer: its loop is stuck or has ended")]
pub struct Unanswered;

/// Both ends.
pub fn channel<T>() -> (Querier<T>, Queries<T>) {
    let (asking, asked) = mpsc::channel(WAITING);
    (Querier(asking), asked)
}

impl<T> Querier<T> {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is none within two seconds.
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
    async fn is_answered_by_whoever_holds_the_other_end() {
        let (ask, mut asked) = channel();
        let answering = async { asked.recv().await.unwrap().send(7).unwrap() };
        assert_eq!(tokio::join!(ask.ask(), answering).0.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_question_that_is_dropped_is_refused_at_once() {
        let (ask, mut asked) = channel::<u8>();
        let dropping = async { drop(asked.recv().await) };
        assert!(tokio::join!(ask.ask(), dropping).0.is_err());
        drop(asked);
        assert!(ask.ask().await.is_err());
    }
}
