//! How many read models have tables and functions in a session at a time.
//!
//! They are created at a read model's first change, and those of the read models that changed
//! longest ago are dropped to make room. When the session ends, the server drops all of them in one
//! transaction, and takes a lock for each object: some twenty a read model, out of one lock table
//! that all sessions share. 200 read models were enough to fill it.

use std::collections::VecDeque;

use super::calls;
use crate::connect::Connection;
use crate::error::Result;
use crate::read_model::ModelId;

/// Locks that a read model's tables and functions take when they are dropped (21 were counted on
/// 15).
const LOCKS_A_READ_MODEL: i64 = 25;

/// Which part of the server's lock table a session's end may take.
const SHARE_OF_LOCKS: i64 = 10;

/// Fewest and most read models that have them: a thousand locks at once are a lot on a large
/// server, too.
const FEWEST: usize = 8;
const MOST: usize = 40;

/// The read models that have tables and functions in this session, the one that was used last at
/// the end.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    used: VecDeque<ModelId>,
}

impl Room {
    /// As much as the server has.
    pub(super) async fn of(conn: &mut Connection) -> Result<Self> {
        let locks = calls::locks(conn).await?;
        let most = usize::try_from(locks / SHARE_OF_LOCKS / LOCKS_A_READ_MODEL).unwrap_or(FEWEST);
        Ok(Self::for_most(most.clamp(FEWEST, MOST)))
    }

    fn for_most(most: usize) -> Self {
        Self {
            most,
            used: VecDeque::new(),
        }
    }

    /// Notes that these read models are used now.
    pub(super) fn note(&mut self, ids: &[ModelId]) {
        self.used.retain(|id| !ids.contains(id));
        self.used.extend(ids);
    }

    /// Read models whose tables have to go, so that there is room for these too. All of a batch
    /// stay, however many they are.
    pub(super) fn leaving(&self, ids: &[ModelId]) -> Vec<ModelId> {
        let new = ids.iter().filter(|id| !self.used.contains(id)).count();
        let too_many = (self.used.len() + new).saturating_sub(self.most);
        let others = self.used.iter().filter(|id| !ids.contains(id));
        others.take(too_many).copied().collect()
    }

    /// Notes that the read model's tables were dropped.
    pub(super) fn left(&mut self, id: ModelId) {
        self.used.retain(|used| *used != id);
    }
}

/// Drops what the session has created for the read model of this number. The names of all of it end
/// with the number.
pub(super) fn drop_all(id: ModelId) -> String {
    format!(
        "DO $cdc$ DECLARE _drop text; BEGIN \
         FOR _drop IN \
             SELECT 'DROP TABLE pg_temp.' || pg_catalog.quote_ident(c.relname) FROM pg_catalog.pg_class c \
             WHERE c.relnamespace = pg_catalog.pg_my_temp_schema() AND c.relkind = 'r' AND c.relname ~ '_{id}$' \
             UNION ALL \
             SELECT 'DROP FUNCTION ' || p.oid::pg_catalog.regprocedure FROM pg_catalog.pg_proc p \
             WHERE p.pronamespace = pg_catalog.pg_my_temp_schema() AND p.proname ~ '_{id}$' \
         LOOP EXECUTE _drop; END LOOP; END $cdc$"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[i32]) -> Vec<ModelId> {
        numbers.iter().copied().map(ModelId).collect()
    }

    #[test]
    fn the_one_that_was_used_longest_ago_goes_first() {
        let mut room = Room::for_most(3);
        assert!(room.leaving(&ids(&[1, 2, 3])).is_empty());
        room.note(&ids(&[1, 2, 3]));
        room.note(&ids(&[1]));
        assert!(room.leaving(&ids(&[3])).is_empty());
        assert_eq!(room.leaving(&ids(&[4])), ids(&[2]));
        room.left(ModelId(2));
        room.note(&ids(&[4]));
        assert_eq!(room.leaving(&ids(&[5, 6])), ids(&[3, 1]));
        assert_eq!(
            room.leaving(&ids(&[4, 5, 6, 7])),
            ids(&[3, 1]),
            "all of a batch stay"
        );
        assert!(room.leaving(&ids(&[])).is_empty());
        room.note(&ids(&[5, 6]));
        assert_eq!(room.leaving(&ids(&[])), ids(&[3, 1]));
    }
}
