//! The replacements of `{{name}}`: tables and the like, quoted unless `cdc` has named them.

use super::Entry;
use crate::sql::literal;
use crate::target::model::TargetModel;
use crate::target::model::joins::READ_ONCE_BYTES_A_ROW;

impl TargetModel {
    /// The names of this read model that every template may use.
    pub(super) fn names(&self) -> Vec<Entry> {
        [self.tables(), self.names_as_text()].concat()
    }

    fn tables(&self) -> Vec<Entry> {
        vec![
            // Schema of the bookkeeping.
            ("schema", self.schema.clone()),
            // The read model's number there.
            ("id", self.id.to_string()),
            // The table that reports read.
            ("lookup", self.lookup()),
            // Source row -> key, and whether it is shown.
            ("map", self.map()),
            // Its name without the schema, for the names of its indexes.
            ("map_table", self.map_table()),
            // What the lookup does not take.
            ("rejected", self.rejected()),
            // The rows of a copy.
            ("shadow", self.shadow()),
            // Session: the final states of a batch.
            ("stage", self.stage()),
            // Session: those of a chunk of a large transaction.
            ("chunk", self.chunk()),
            // Session: rows that may change the map.
            ("moving", self.moving()),
            // Session: keys that may change hands.
            ("touched", self.touched()),
            // Session: writes that are tried in pieces.
            ("tries", self.tries()),
            // Session: entries of rejected rows that are tried again.
            ("earlier", self.earlier()),
            // Session: the index that the stage of a large transaction may have.
            ("stage_index", self.stage_index()),
            // Bytes for each row of a batch up to which the tables are better read once.
            ("bytes_a_row", READ_ONCE_BYTES_A_ROW.to_string()),
        ]
    }

    /// Quoted names as string literals, for what takes a name as text.
    fn names_as_text(&self) -> Vec<Entry> {
        vec![
            ("lookup_name", literal(&self.lookup())),
            ("map_name", literal(&self.map())),
            // The map's index by key.
            ("map_key_name", literal(&format!("{}_key", self.map()))),
            ("shadow_name", literal(&self.shadow())),
        ]
    }
}
