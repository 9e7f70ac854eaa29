//! What a resync notes of lookups that are right.

use super::Bookkeeping;
use super::progress::NO_PROGRESS;
use crate::batch::Written;
use crate::connect::Connection;
use crate::connect::query::query;
use crate::error::Result;
use crate::read_model::ModelId;
use crate::target::error::from_driver;

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
    /// A resync has found these read models right. Returns those that are still in step: one that
    /// was suspended meanwhile is not noted.
    ///
    /// # Errors
    /// [`Class::Fenced`](crate::error::Class::Fenced) if another process has taken over.
    pub(crate) async fn note_equal(
        &self,
        conn: &mut Connection,
        epoch: i64,
        equal: &[Equal],
    ) -> Result<Vec<ModelId>> {
        if equal.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "UPDATE {}.read_model r SET last_resync_at = now(), last_resync_repaired = 0, compared_at = now(), differing = 0, \
             waiting = e.waiting, {NO_PROGRESS} \
             FROM unnest($2, $3) AS e(id, waiting) WHERE r.id = e.id AND r.state = 'in_step' AND {} RETURNING r.id",
            self.schema,
            self.ours()
        );
        let query = query(sql)
            .bind(epoch)
            .bind(equal.iter().map(|equal| equal.id.0).collect::<Vec<_>>())
            .bind(equal.iter().map(|equal| equal.waiting).collect::<Vec<_>>());
        let noted: Vec<i32> = query.values_of(conn).await.map_err(from_driver)?;
        if noted.is_empty() {
            self.check_ours(conn, epoch).await?;
        }
        Ok(noted.into_iter().map(ModelId).collect())
    }
}
