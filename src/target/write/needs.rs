//! What a read model needs in a session: tables and functions. What only some batches need is
//! created before the first of them.

use std::collections::HashSet;

use crate::read_model::ModelId;
use crate::target::model::{Joins, TargetModel};

/// Something that a read model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    /// Stage, and the function that merges by looking rows up.
    Stage,
    /// The function that merges by reading the tables once.
    MergeReadOnce,
    /// The tables of the isolating run.
    Tries,
    /// The isolating function.
    Isolate(Joins),
    /// The table of a chunk, and the function that folds it into the stage.
    Chunk,
}

/// What the session has created, with the number of the read model.
#[derive(Debug, Default)]
pub(super) struct Prepared(HashSet<(ModelId, Need)>);

impl Prepared {
    pub(super) fn has(&self, id: ModelId, need: Need) -> bool {
        self.0.contains(&(id, need))
    }

    pub(super) fn note(&mut self, id: ModelId, need: Need) {
        self.0.insert((id, need));
    }

    /// It was created in a transaction that was rolled back, or for other columns.
    pub(super) fn forget(&mut self, id: ModelId) {
        self.0.retain(|(of, _)| *of != id);
    }

    /// Read models that have a stage.
    pub(super) fn staged(&self) -> Vec<ModelId> {
        let stages = self.0.iter().filter(|(_, need)| *need == Need::Stage);
        stages.map(|(id, _)| *id).collect()
    }
}

impl Need {
    /// The statements that create it.
    pub(super) fn statements(self, model: &TargetModel) -> Vec<String> {
        match self {
            Self::Stage => {
                let mut all = vec![
                    drop_tables(model, &["stage", "moving", "touched"]),
                    model.create_stage(),
                    model.merge_function(Joins::LookedUp),
                ];
                all.extend(model.fits_one_statement().then(|| model.apply_function()));
                // A map that an earlier version created has none yet.
                all.push(model.create_rejected());
                all
            }
            Self::MergeReadOnce => vec![model.merge_function(Joins::ReadOnce)],
            Self::Tries => vec![
                drop_tables(model, &["tries", "earlier"]),
                model.create_tries(),
            ],
            Self::Isolate(joins) => vec![model.isolate_function(joins)],
            Self::Chunk => vec![
                drop_tables(model, &["chunk"]),
                model.create_chunk(),
                model.fold_chunk_function(),
            ],
        }
    }
}

fn drop_tables(model: &TargetModel, tables: &[&str]) -> String {
    let tables = tables
        .iter()
        .map(|table| format!("pg_temp.{table}_{}", model.id));
    let tables: Vec<String> = tables.collect();
    format!("DROP TABLE IF EXISTS {}", tables.join(", "))
}
