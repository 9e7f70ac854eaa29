//! Whether the stream can continue from the checkpoint, or everything has to be copied again.

use super::Session;
use crate::error::Result;
use crate::lsn::Lsn;
use crate::run::lessons::Lessons;
use crate::source;
use crate::target::bookkeeping::Claim;

impl Session<'_> {
    /// Why the stream cannot continue from the checkpoint; `None` if it can.
    pub(super) async fn what_is_wrong(
        &mut self,
        claim: &Claim,
        lessons: &Lessons,
    ) -> Result<Option<String>> {
        let name = &self.shared.settings.source.slot;
        let slot = source::facts::slot(&self.client, name).await?;
        let Some(checkpoint) = &claim.checkpoint else {
            return Ok(Some(
                claim
                    .healing
                    .clone()
                    .unwrap_or_else(|| "first copy".to_owned()),
            ));
        };
        if let Some(why) = &lessons.gap {
            return Ok(Some(why.clone()));
        }
        if let Some(why) = &claim.healing {
            return Ok(Some(why.clone()));
        }
        let Some(slot) = slot else {
            return Ok(Some("the slot is missing".to_owned()));
        };
        if slot.wal_status.as_deref() == Some("lost") || slot.invalidation_reason.is_some() {
            let reason = slot
                .invalidation_reason
                .unwrap_or_else(|| "wal_removed".to_owned());
            return Ok(Some(format!("the slot was invalidated ({reason})")));
        }
        let made_for = self
            .shared
            .bookkeeping
            .publication_oid(self.writer.connection())
            .await?;
        if made_for.is_some() && made_for != self.publication().map(i64::from) {
            return Ok(Some("the publication was created again".to_owned()));
        }
        let confirmed = slot.confirmed_flush_lsn.unwrap_or(Lsn::ZERO);
        if confirmed > checkpoint.lsn {
            return Ok(Some(format!(
                "the slot stands at {confirmed}, ahead of the checkpoint {}",
                checkpoint.lsn
            )));
        }
        let end = source::facts::current_wal(&self.client).await?;
        if end < checkpoint.lsn {
            return Ok(Some(format!(
                "the source's WAL ends at {end}, behind the checkpoint {}",
                checkpoint.lsn
            )));
        }
        Ok(None)
    }

    /// OID of the publication.
    pub(super) fn publication(&self) -> Option<u32> {
        self.looks.first().and_then(|look| look.publication)
    }
}
