//! Statements that are sent before the answers to the ones before them have come: together they
//! take one round trip.
//!
//! The server carries them out in the order in which they were sent, and answers in that order.
//! Each has its own answer. In a transaction that has failed every later statement fails too, with
//! SQLSTATE 25P02: the first error is the one that counts, so the answers are read in order.
//!
//! A COMMIT that is sent so goes as the last statement of a [`script`], never alone: alone in a
//! failed transaction it rolls back and is no error, and the driver does not show its command tag.
//! In a script the statement before it fails, and the COMMIT is not carried out.

use std::future::{pending, ready};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use tokio::task::JoinError;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::connection::Connection;

/// The answer to something that was sent.
#[must_use]
pub(crate) struct Sent<'a, T> {
    answer: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    is_sent: bool,
}

impl<'a, T: Send + 'a> Sent<'a, T> {
    /// The same answer in other terms.
    pub(crate) fn map<U>(self, as_other: impl FnOnce(T) -> U + Send + 'a) -> Sent<'a, U> {
        Sent {
            answer: Box::pin(async move { as_other(self.answer.await) }),
            is_sent: self.is_sent,
        }
    }

    /// Whether it was sent. If it could not be, such as for a value that cannot be encoded, the
    /// server carries out what comes next as if nothing were missing.
    pub(crate) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// Waits for it. What was sent is carried out, whether somebody waits or not.
    pub(crate) async fn answer(self) -> T {
        self.answer.await
    }
}

impl<T> std::fmt::Debug for Sent<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sent")
    }
}

/// Sends a request that needs nothing more from the server than its own answer.
///
/// The driver queues a request when its future is polled for the first time. A task of its own
/// reads the answer as soon as it comes: the driver keeps only a piece or two of an answer that
/// nobody reads, and reads no other one until then.
pub(crate) fn send<T, F>(
    conn: &Connection,
    request: impl FnOnce(Arc<Client>) -> F,
) -> Sent<'static, T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    send_request(request(conn.client()))
}

/// The same for a request that knows its connection.
pub(crate) fn send_request<T, F>(request: F) -> Sent<'static, T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut request = Box::pin(request);
    match request
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        // Nothing could be sent.
        Poll::Ready(answer) => Sent {
            answer: Box::pin(ready(answer)),
            is_sent: false,
        },
        Poll::Pending => {
            let task = tokio::spawn(request);
            let answer = async {
                match task.await.map_err(JoinError::try_into_panic) {
                    Ok(answer) => answer,
                    Err(Ok(panic)) => resume_unwind(panic),
                    // The runtime ends.
                    Err(Err(_)) => pending().await,
                }
            };
            Sent {
                answer: Box::pin(answer),
                is_sent: true,
            }
        }
    }
}

/// Why a script ended early.
#[derive(Debug)]
pub(crate) struct Failed {
    /// How many of its statements were carried out before.
    pub(crate) done: usize,
    pub(crate) error: Error,
}

/// Sends statements without arguments whose rows nobody reads, in one message. If one fails, the
/// server leaves out the ones after it.
pub(crate) fn script(conn: &Connection, sql: String) -> Sent<'static, Result<(), Failed>> {
    send(conn, |client| async move { run(&client, &sql).await })
}

async fn run(client: &Client, sql: &str) -> Result<(), Failed> {
    let mut done = 0;
    let answers = client.simple_query_raw(sql).await;
    let mut answers = pin!(answers.map_err(|error| Failed { done, error })?);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(SimpleQueryMessage::CommandComplete(_)) => done += 1,
            Ok(_) => {}
            Err(error) => return Err(Failed { done, error }),
        }
    }
    Ok(())
}
