//! What the watch looks for at the target alone: bookkeeping that is missing, and lookup rows that
//! another session has inserted or deleted.

use std::time::{Duration, Instant};

use super::{LOOK_INTERVAL, Watch, ask_for_resync};
use crate::connect::Connection;
use crate::error::{Error, Result};
use crate::read_model::ModelId;
use crate::retry::Backoff;
use crate::sql::TableName;
use crate::target::bookkeeping::{Counts, Damage};

/// Longest delay between two resyncs of a read model whose rows are miscounted again and again.
const MOST_ASKING_DELAY: Duration = Duration::from_secs(3600);

impl Watch {
    /// Looks at what only the target knows; returns an error with which the session cannot
    /// continue.
    pub(super) async fn look_for_damage(
        &mut self,
        target: &mut Connection,
    ) -> Result<Option<Error>> {
        let models: Vec<(ModelId, &TableName)> = self
            .watched
            .iter()
            .map(|watched| (watched.id, &watched.lookup))
            .collect();
        let miscounted = match self
            .shared
            .bookkeeping
            .damage(target, self.epoch, &models)
            .await?
        {
            Some(Damage::Gone(table)) => {
                return Ok(Some(Error::transient(format!(
                    "table {table} of the bookkeeping is gone"
                ))));
            }
            Some(Damage::Miscounted(ids)) => ids,
            None => Vec::new(),
        };
        self.miscounted.retain(|id, _| miscounted.contains(id));
        for (id, lookup) in models.iter().filter(|(id, _)| miscounted.contains(id)) {
            let name = lookup.to_string();
            let (backoff, next) = self.miscounted.entry(*id).or_insert_with(|| {
                (
                    Backoff::new(LOOK_INTERVAL, MOST_ASKING_DELAY),
                    Instant::now(),
                )
            });
            // A running resync writes the lookup, or has not reached it.
            if *next <= Instant::now()
                && !self
                    .shared
                    .bookkeeping
                    .is_asked_for(target, &name, Counts::All)
                    .await?
            {
                let why = "the lookup or its map has another number of rows than was written";
                ask_for_resync(&self.shared, target, self.epoch, (&name, why)).await?;
                *next = Instant::now() + backoff.next_delay(0.0);
            }
        }
        Ok(None)
    }
}
