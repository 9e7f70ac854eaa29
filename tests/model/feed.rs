//! What a walsender sends on one connection: the messages of the transactions that are committed,
//! in order.

use cdc::lsn::{Lsn, PgTimestamp};
use cdc::protocol::frame::StreamFrame;

use crate::history::Sent;

/// One connection.
#[derive(Clone)]
pub struct Feed {
    /// The transaction that is being sent, or is next.
    next: usize,
    /// Messages of it that are to come.
    messages: Vec<Vec<u8>>,
    /// Whether the tables were described on this connection.
    described: bool,
    /// Where it has begun.
    start: Lsn,
}

impl Feed {
    /// Everything that commits at or after this position.
    pub fn from(start: Lsn, sent: &[Sent]) -> Self {
        let next = sent
            .iter()
            .take_while(|sent| Lsn(sent.place.commit_lsn) < start)
            .count();
        Self {
            next,
            messages: Vec::new(),
            described: false,
            start,
        }
    }

    /// The next message, of as many transactions as are committed.
    pub fn next(&mut self, sent: &[Sent]) -> Option<Vec<u8>> {
        if self.messages.is_empty() {
            let now = sent.get(self.next)?;
            let before = self.next.checked_sub(1).and_then(|at| sent.get(at));
            self.described &= before.is_some_and(|before| before.is_altered == now.is_altered);
            let told = now.messages.tell(&mut self.described, now.is_altered);
            self.messages = told.into_iter().rev().map(<[u8]>::to_vec).collect();
        }
        let message = self.messages.pop();
        self.next += usize::from(self.messages.is_empty());
        message
    }

    /// Whether everything that is committed was sent.
    pub fn is_drained(&self, sent: &[Sent]) -> bool {
        self.messages.is_empty() && self.next >= sent.len()
    }

    /// What a keepalive says: within a transaction the end of the record before its commit, which a
    /// walsender names at most.
    pub fn wal_end(&self, sent: &[Sent]) -> Lsn {
        if !self.messages.is_empty() {
            return Lsn(sent[self.next].place.commit_lsn);
        }
        let before = self.next.checked_sub(1).and_then(|at| sent.get(at));
        before
            .map_or(self.start, |sent| Lsn(sent.passed))
            .max(self.start)
    }

    /// The tables are described again before the next change.
    pub fn describe_again(&mut self) {
        self.described = false;
    }
}

/// A message in its frame, sent so many microseconds after its commit.
pub fn frame(payload: &[u8], send_time: i64) -> StreamFrame<'_> {
    StreamFrame::WalData {
        start: Lsn::ZERO,
        end: Lsn::ZERO,
        send_time: PgTimestamp(send_time),
        payload,
    }
}

/// A keepalive.
pub fn keepalive(wal_end: Lsn, reply_requested: bool) -> StreamFrame<'static> {
    StreamFrame::Keepalive {
        wal_end,
        send_time: PgTimestamp(0),
        reply_requested,
    }
}
