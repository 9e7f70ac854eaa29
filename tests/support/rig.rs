//! A writer on a real target without a source: changes are written as text and go through read
//! model, fold and writer.
//!
//! A change is one line: `+1|MR|Mr.|-` inserts, `=1|MR|Sir|-` updates, `=1|MR > 2|MR|Mr.|-` updates
//! with an old tuple, `-1` deletes, `!` truncates. Cells are in the order of the source's columns;
//! `-` is NULL, `u` an unchanged out-of-line value.

use std::sync::Arc;

use cdc::batch::{Batch, Position, Written};
use cdc::connect::Connection;
use cdc::conninfo::{Conninfo, Environment};
use cdc::error::Result;
use cdc::facts::{ReplicaIdentity, SourceColumn, SourceTable};
use cdc::fold::Fold;
use cdc::lsn::{Lsn, PgTimestamp};
use cdc::progress::TransactionId;
use cdc::read_model::{Change, ModelIndex, ReadModel, Remembering};
use cdc::relation::{Layout, Relation, RelationColumn};
use cdc::row::Cell;
use cdc::settings::{ColumnMapping, ReadModelSettings};
use cdc::sql::TableName;
use cdc::target::bookkeeping::{Bookkeeping, Claimant, Definition};
use cdc::target::model::TargetModel;
use cdc::target::shadow::ShadowWriter;
use cdc::target::write::Writer;
use cdc::target::{connect, facts};
use tokio_postgres::Client;

use crate::support::{self, rows};

/// The first read model of a rig, and the second one.
pub const FIRST: ModelIndex = ModelIndex(0);
pub const SECOND: ModelIndex = ModelIndex(1);

/// A source table as its catalog would tell it, and the rule of the read model.
pub struct Shape {
    pub settings: ReadModelSettings,
    pub table: SourceTable,
    pub identity: Vec<String>,
    pub remembering: Remembering,
}

/// `columns` are the source's names and types; `projected` pairs (lookup name, source name), the
/// first `key` of them are the key. Every column of type text or varchar may come as unchanged if
/// `toastable`.
pub fn shape(
    target: &str,
    columns: &[(&str, &str)],
    identity: &[&str],
    projected: &[(&str, &str)],
    key: usize,
    toastable: bool,
) -> Shape {
    let settings = ReadModelSettings {
        source: TableName::new("public", "master"),
        target: TableName::new("public", target),
        key: projected[..key]
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect(),
        columns: projected
            .iter()
            .map(|(target, source)| ColumnMapping {
                target: (*target).to_owned(),
                source: (*source).to_owned(),
            })
            .collect(),
        soft_delete: columns
            .iter()
            .any(|(name, _)| *name == "deleted_at")
            .then(|| "deleted_at".to_owned()),
        synced_at: None,
        on_row_error: cdc::settings::OnRowError::default(),
    };
    let columns = columns.iter().zip(1..).map(|((name, type_name), number)| {
        let text = matches!(*type_name, "text" | "character varying");
        SourceColumn {
            name: (*name).to_owned(),
            number,
            type_oid: 1,
            type_name: (*type_name).to_owned(),
            bare_type_name: (*type_name).to_owned(),
            not_null: false,
            toastable: toastable && text,
            generated: false,
            builtin: true,
            collatable: text,
            boolean: *type_name == "boolean",
        }
    });
    Shape {
        settings,
        table: SourceTable::ordinary(
            16400,
            TableName::new("public", "master"),
            columns.collect(),
            identity,
        ),
        identity: identity.iter().map(|name| (*name).to_owned()).collect(),
        remembering: Remembering::Map,
    }
}

/// A read model with what turns its text into changes.
pub struct Bound {
    pub target: TargetModel,
    pub layout: Layout,
}

/// The writer, and a second connection that looks at what it did.
pub struct Rig {
    pub db: Client,
    pub writer: Writer,
    pub bookkeeping: Bookkeeping,
    pub models: Vec<Bound>,
    pub lsn: u64,
    pub url: String,
}

impl Rig {
    /// A fresh database with these tables and an empty bookkeeping.
    pub async fn new(tables: &str) -> Self {
        Self::at(support::target_database().await, tables).await
    }

    /// The same in this database, which is empty.
    pub async fn at(url: String, tables: &str) -> Self {
        let db = support::pg(&url).await;
        db.batch_execute(tables).await.unwrap();
        let bookkeeping = Bookkeeping::new("cdc");
        let mut conn = session(&url).await;
        bookkeeping.ensure(&mut conn).await.unwrap();
        let claim = bookkeeping
            .claim(&mut conn, claimant("test"))
            .await
            .unwrap();
        let writer = Writer::new(conn, bookkeeping.clone(), claim.epoch)
            .await
            .unwrap();
        Self {
            db,
            writer,
            bookkeeping,
            models: Vec::new(),
            lsn: 1000,
            url,
        }
    }

    /// A session as the engine opens it.
    pub async fn session(&self) -> Connection {
        session(&self.url).await
    }

    /// Adds a read model and returns its index.
    pub async fn add(&mut self, shape: &Shape) -> ModelIndex {
        let names: Vec<&str> = shape.identity.iter().map(String::as_str).collect();
        let model = Arc::new(
            ReadModel::bind(
                &shape.settings,
                &shape.table,
                &shape.identity,
                shape.remembering,
            )
            .unwrap(),
        );
        let full = shape.table.replica_identity == ReplicaIdentity::Full;
        let relation = Relation {
            oid: shape.table.oid,
            name: shape.table.name.clone(),
            replica_identity: shape.table.replica_identity,
            columns: shape
                .table
                .columns
                .iter()
                .map(|column| RelationColumn {
                    name: column.name.clone(),
                    type_oid: column.type_oid,
                    in_identity: full || names.contains(&column.name.as_str()),
                })
                .collect(),
        };
        let layout = model.layout(&relation).unwrap();
        let epoch = self.writer.epoch();
        let conn = self.writer.connection();
        let lookup = facts::table(conn, &shape.settings.target)
            .await
            .unwrap()
            .unwrap();
        let name = shape.settings.name();
        let id = self
            .bookkeeping
            .add_model(conn, epoch, &name, "public.master")
            .await
            .unwrap();
        // The first shadow, which `shadow` takes.
        let target = TargetModel::bind(id, self.bookkeeping.schema_name(), model, &lookup)
            .unwrap()
            .at_look(1);
        let definition = Definition {
            generation: 0,
            source: "public.master",
            definition: &target.definition(),
            create_map: &target.create_map(),
        };
        self.bookkeeping
            .redefine_model(conn, epoch, id, definition)
            .await
            .unwrap();
        // As after its first copy.
        conn.batch_execute(&target.make_map_identity())
            .await
            .unwrap();
        let index = ModelIndex(self.models.len());
        self.writer.set_model(index, target.clone());
        self.models.push(Bound { target, layout });
        index
    }

    /// A session with the empty first shadow of the read model.
    pub async fn shadow(&self, index: ModelIndex) -> ShadowWriter {
        // The session before may not be gone yet.
        let busy = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 \
                    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        support::wait_until("the shadow is free", async || {
            match rows(&self.db, busy).await {
                free if free == ["0"] => Ok(()),
                locks => Err(format!("{locks:?}")),
            }
        })
        .await;
        let mut shadow = ShadowWriter::new(self.session().await);
        let model = &self.models[index.0].target;
        let taken = shadow.take(&self.bookkeeping, model).await.unwrap();
        assert_eq!(taken.shadow_table(), model.shadow_table());
        shadow
    }

    /// Another process takes over: its writer, with a higher epoch.
    pub async fn another_writer(&self) -> Writer {
        let mut conn = self.session().await;
        let claim = self
            .bookkeeping
            .claim(&mut conn, claimant("other"))
            .await
            .unwrap();
        let mut writer = Writer::new(conn, self.bookkeeping.clone(), claim.epoch)
            .await
            .unwrap();
        for (index, bound) in ModelIndex::number(&self.models) {
            writer.set_model(index, bound.target.clone());
        }
        writer
    }

    /// The changes folded.
    pub fn fold(&self, index: ModelIndex, changes: &[impl AsRef<str>]) -> Fold {
        let mut fold = Fold::default();
        for change in changes {
            if let Some(change) = self.change(index, change.as_ref()) {
                fold.add(change);
            }
        }
        fold
    }

    /// One change.
    pub fn change(&self, index: ModelIndex, text: &str) -> Option<Change> {
        let Bound { target, layout } = &self.models[index.0];
        let model = &target.model;
        let (kind, rest) = text.split_at(1);
        match kind {
            "+" => model.insert(layout, &cells(rest)).unwrap(),
            "-" => model.delete(layout, &cells(rest)).unwrap(),
            "!" => Some(Change::Truncate),
            _ => match rest.split_once(" > ") {
                Some((old, new)) => model
                    .update(layout, Some(&cells(old)), &cells(new))
                    .unwrap(),
                None => model.update(layout, None, &cells(rest)).unwrap(),
            },
        }
    }

    /// The next position.
    pub fn position(&mut self) -> Position {
        self.lsn += 8;
        Position {
            lsn: Lsn(self.lsn),
            commit_time: Some(PgTimestamp::from_unix_micros(1_700_000_000_000_000)),
            last: Some(TransactionId {
                commit_lsn: Lsn(self.lsn - 4),
                xid: 700,
                commit_time: PgTimestamp::from_unix_micros(1_700_000_000_000_000),
            }),
        }
    }

    /// Writes folds as one batch.
    pub async fn apply(
        &mut self,
        folds: Vec<(ModelIndex, Fold)>,
    ) -> Result<Vec<(ModelIndex, Written)>> {
        let batch = Batch {
            position: self.position(),
            folds,
            suspended: Vec::new(),
            transactions: 1,
            chunks: 0,
        };
        self.writer.apply(batch).await
    }

    /// Writes changes of one read model as a transaction that comes in chunks: all but the last are
    /// staged before its end.
    pub async fn write_in_chunks(
        &mut self,
        index: ModelIndex,
        chunks: &[&[impl AsRef<str>]],
    ) -> Result<Vec<(ModelIndex, Written)>> {
        let (last, before) = chunks.split_last().unwrap();
        for chunk in before {
            let fold = self.fold(index, chunk);
            self.writer.stage_chunk(&[(index, fold)]).await?;
        }
        self.write_in_chunks_after(before.len(), index, last).await
    }

    /// Writes the end of a transaction of which so many chunks were staged.
    pub async fn write_in_chunks_after(
        &mut self,
        staged: usize,
        index: ModelIndex,
        last: &[impl AsRef<str>],
    ) -> Result<Vec<(ModelIndex, Written)>> {
        let batch = Batch {
            position: self.position(),
            folds: vec![(index, self.fold(index, last))],
            suspended: Vec::new(),
            transactions: 1,
            chunks: u64::try_from(staged).unwrap(),
        };
        self.writer.apply(batch).await
    }

    /// Writes changes of one read model as one batch.
    pub async fn write(
        &mut self,
        index: ModelIndex,
        changes: &[impl AsRef<str>],
    ) -> Result<Written> {
        let fold = self.fold(index, changes);
        let written = self.apply(vec![(index, fold)]).await?;
        Ok(written
            .into_iter()
            .next()
            .map_or_else(Written::default, |(_, written)| written))
    }
}

fn claimant(owner: &str) -> Claimant<'_> {
    Claimant {
        slot: "slot",
        publication: "pub",
        owner,
        source: None,
    }
}

async fn session(url: &str) -> Connection {
    let conninfo = Conninfo::parse(url, &Environment::default()).unwrap();
    connect::connect(&conninfo, "test").await.unwrap()
}

fn cells(text: &str) -> Vec<Cell<'_>> {
    text.split('|')
        .map(|word| match word {
            "-" => Cell::Null,
            "u" => Cell::Unchanged,
            word => Cell::Text(word.as_bytes()),
        })
        .collect()
}
