//! Nothing is handed on before the descriptions by which it was mapped are proved: the watch looks at their tables.
//!
//! Relation messages come again after everything that touches a table, ANALYZE too, so a look is cheap, and one does for a whole batch.

use tokio::sync::oneshot;

use super::Stream;
use crate::error::{Class, Error, Result};
use crate::run::report;
use crate::run::watch::{Answer, Question};

impl Stream {
    /// Asks for a look, if one has to come before what waits; returns whether that is so.
    pub(super) async fn must_be_proved(&mut self) -> Result<bool> {
        if self.proof.is_some() {
            return Ok(true);
        }
        let tables = self.assembler.to_prove();
        if tables.is_empty() {
            return Ok(false);
        }
        let (reply, answer) = oneshot::channel();
        self.questions
            .send(Question { tables, reply })
            .await
            .map_err(|_| Error::transient("the watch has ended"))?;
        self.proof = Some(answer);
        Ok(true)
    }

    /// The watch has looked: read models of which the rows may be of other columns leave before what waits, and the rest goes on at
    /// once, before anything that is to be proved again.
    pub(super) async fn proved(&mut self, answer: Answer) -> Result<()> {
        self.proof = None;
        let shapes = answer.map_err(|error| error.with_class(Class::Transient))?;
        for broken in self.assembler.prove(&shapes) {
            if let Some(settings) = self.names.get(broken.index) {
                report::suspended(settings, &broken.error, Some(broken.commit_lsn));
            }
            self.pending.break_off(broken);
        }
        if self.in_flight.is_none() && !self.stands_still() {
            self.submit_batch().await?;
        }
        Ok(())
    }
}

/// Waits for the watch's answer. Cancel-safe.
pub(super) async fn answered(proof: &mut Option<oneshot::Receiver<Answer>>) -> Answer {
    match proof {
        Some(answer) => answer
            .await
            .unwrap_or_else(|_| Err(Error::transient("the watch has ended"))),
        None => std::future::pending().await,
    }
}
