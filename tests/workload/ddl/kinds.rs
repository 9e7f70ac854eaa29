//! The table of the kinds of DDL. Each kind ends with the tables as the read models want them,
//! though perhaps made again.

use super::changes::item_change;
use super::script::{Place, Script};
use super::tables::Shape;
use super::{
    kinds_of_columns as columns, kinds_of_partitions as partitions, kinds_of_tables as tables,
};

/// A kind of DDL, and what makes its pieces.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub write: fn(&mut Script),
    /// Readers may see rows of several states together until the end of the round, so it comes
    /// last.
    pub blurs: bool,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

const fn kind(name: &'static str, write: fn(&mut Script)) -> Kind {
    Kind {
        name,
        write,
        blurs: false,
    }
}

const fn blurring(name: &'static str, write: fn(&mut Script)) -> Kind {
    Kind {
        blurs: true,
        ..kind(name, write)
    }
}

pub const KINDS: [Kind; 28] = [
    kind("column renamed", columns::renamed),
    kind(
        "column renamed there and back inside",
        columns::renamed_inside,
    ),
    kind("columns swapped", columns::swapped),
    kind("column made again", columns::made_again),
    kind("column added", columns::added),
    kind("key column made again", columns::key_made_again),
    kind("soft delete made again", columns::soft_delete_made_again),
    kind("type widened", columns::widened),
    kind("type rewritten", columns::rewritten),
    blurring("values rewritten", columns::values_rewritten),
    blurring("enum label renamed", columns::label_renamed),
    kind("replica identity", identity),
    kind("primary key moved", primary_key_moved),
    kind("no primary key", no_primary_key),
    kind("table swapped", tables::swapped),
    kind("table made again", tables::made_again),
    kind("table away", tables::away),
    kind("truncated", tables::truncated),
    kind("table rewritten", tables::rewritten),
    kind("described again", tables::described_again),
    kind("ddl rolled back", tables::rolled_back),
    kind(
        "altered in a large transaction",
        tables::altered_in_a_large_transaction,
    ),
    blurring("taken out of the publication", tables::taken_out),
    kind("partition truncated", partitions::truncated),
    kind("partition detached", partitions::detached),
    kind("partition attached", partitions::attached),
    kind("partitioned table swapped", partitions::swapped),
    kind("lookup altered", lookup_altered),
];

/// Of the ordinary table, or of the leaves of the partitioned one. Never one that makes the
/// application's writes fail.
fn identity(script: &mut Script) {
    let shape = script.shape.clone();
    if script.chance(4) {
        for how in ["FULL", "DEFAULT"] {
            let of = |region: &str| {
                format!(
                    "ALTER TABLE {}.parts_{region} REPLICA IDENTITY {how}",
                    shape.schema
                )
            };
            let leaves = shape.regions.iter().map(|region| of(region)).collect();
            script.keep(leaves);
            script.maybe_rest();
        }
        return;
    }
    for _ in 0..script.rng.u32(1..4) {
        let how = script.pick(&["FULL", "DEFAULT", "INDEX"]);
        let sql = set_identity(&shape, how);
        script.one(sql);
        script.maybe_rest();
    }
    script.one(set_identity(&shape, "DEFAULT"));
}

fn set_identity(shape: &Shape, how: &str) -> String {
    let items = &shape.items;
    if how != "INDEX" {
        return format!("ALTER TABLE {items} REPLICA IDENTITY {how}");
    }
    format!(
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE {items} REPLICA IDENTITY USING INDEX %I', c.relname) \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         WHERE i.indrelid = '{items}'::regclass AND a.attname = 'tag' AND i.indisunique ORDER BY 1 LIMIT 1); END $$"
    )
}

/// Whatever its name is: it goes along when tables are swapped.
fn drop_primary_key(items: &str) -> String {
    format!(
        "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE {items} DROP CONSTRAINT %I', conname) FROM pg_constraint \
         WHERE conrelid = '{items}'::regclass AND contype = 'p'); END $$"
    )
}

fn primary_key_moved(script: &mut Script) {
    let items = script.shape.items.clone();
    for column in ["tag", "id"] {
        script.keep(vec![
            drop_primary_key(&items),
            format!("ALTER TABLE {items} ADD PRIMARY KEY ({column})"),
        ]);
        script.maybe_rest();
    }
}

/// FULL without a primary key: the read model's key stands in.
fn no_primary_key(script: &mut Script) {
    let (items, number) = (script.shape.items.clone(), script.number.clone());
    let schema = script.shape.schema.clone();
    script.keep(vec![
        format!("CREATE UNIQUE INDEX items_id_{number} ON {items} (id)"),
        format!("ALTER TABLE {items} REPLICA IDENTITY FULL"),
        drop_primary_key(&items),
    ]);
    script.maybe_rest();
    let change = item_change(&mut script.rng, &script.shape);
    script.keep(vec![
        format!("ALTER TABLE {items} ADD PRIMARY KEY (id)"),
        change,
        format!("ALTER TABLE {items} REPLICA IDENTITY DEFAULT"),
        format!("DROP INDEX {schema}.items_id_{number}"),
    ]);
}

/// What is done at the target must not be done twice in vain: it may be, when the server goes away.
fn lookup_altered(script: &mut Script) {
    let lookup = format!("{}.items_lookup", script.shape.schema);
    let number = script.number.clone();
    for _ in 0..script.rng.u32(1..4) {
        let sql = match script.rng.u32(0..6) {
            0 => format!("ALTER TABLE {lookup} ALTER label TYPE text"),
            1 => format!("ALTER TABLE {lookup} ALTER label TYPE varchar(200)"),
            2 => format!("ALTER TABLE {lookup} ALTER amount TYPE numeric"),
            3 => format!(
                "ALTER TABLE {lookup} ADD COLUMN IF NOT EXISTS note_{number} text NOT NULL DEFAULT 'n'"
            ),
            4 => format!("CREATE INDEX IF NOT EXISTS by_label_{number} ON {lookup} (label)"),
            _ => format!(
                "CREATE UNIQUE INDEX IF NOT EXISTS by_code_{number} ON {lookup} (code); ALTER TABLE {lookup} DROP CONSTRAINT IF EXISTS items_lookup_pkey"
            ),
        };
        script.one(sql).at(Place::Target);
        script.maybe_rest();
    }
    let schema = script.shape.schema.clone();
    let back = format!(
        "ALTER TABLE {lookup} ALTER label TYPE varchar(50), ALTER amount TYPE bigint, DROP COLUMN IF EXISTS note_{number}; \
         DROP INDEX IF EXISTS {schema}.by_label_{number}; \
         DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = '{lookup}'::regclass AND contype = 'p') \
         THEN ALTER TABLE {lookup} ADD CONSTRAINT items_lookup_pkey PRIMARY KEY (code); END IF; END $$; \
         DROP INDEX IF EXISTS {schema}.by_code_{number}"
    );
    script.one(back).at(Place::Target);
}
