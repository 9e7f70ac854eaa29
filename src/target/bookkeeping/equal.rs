//! What a resync notes of lookups that are right.

use super::Bookkeeping;
use crate::batch::Written;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;

/// A read model whose lookup and map are exactly as a copy has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Equal {
    pub(crate) id: ModelId,
    /// Rows of the lookup.
    pub(crate) shown: i64,
    /// Live rows whose key another one has.
    pub(crate) waiting: i64,
}

impl From<Equal> for Written {
    fn from(equal: Equal) -> Self {
        Self {
            total: equal.shown,
            waiting: equal.waiting,
            ..Self::default()
        }
    }
}

impl Bookkeeping {
    /// A resync has found these read models right. One that was suspended meanwhile is left out.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub(crate) async fn note_equal(
        &self,
        conn: &mut Connection,
        epoch: i64,
        equal: &[Equal],
    ) -> Result<()> {
        let sql = format!(
            "UPDATE {}.read_model r SET last_resync_at = now(), last_resync_repaired = 0, compared_at = now(), differing = 0, \
             waiting = e.waiting, copy_rows = NULL, copy_estimate = NULL, copy_bytes = NULL, copy_seconds = NULL \
             FROM unnest($2, $3) AS e(id, waiting) WHERE r.id = e.id AND r.state = 'in_step' AND {}",
            self.schema,
            self.ours()
        );
        let query = query(sql)
            .bind(epoch)
            .bind(equal.iter().map(|equal| equal.id.0).collect::<Vec<_>>())
            .bind(equal.iter().map(|equal| equal.waiting).collect::<Vec<_>>());
        self.write(conn, epoch, query).await?;
        Ok(())
    }
}
