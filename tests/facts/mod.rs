//! What the catalogs say, read from a real server: one private cluster that stands for both sides.
mod cluster;
mod commands;

use cdc::connect::Connection;
use cdc::facts::{LookupTable, ReplicaIdentity, SourceTable};
use cdc::identity::{Basis, identity};
use cdc::ownership::Maker;
use cdc::settings::{ReadModelSettings, ResyncSettings, Settings, SourceSettings, TargetSettings};
use cdc::sql::TableName;
use cdc::target::bookkeeping::Bookkeeping;
use cdc::{source, target};

use cluster::Cluster;

const SCHEMA: &str = "
    CREATE SCHEMA s; SET search_path = s;
    CREATE EXTENSION citext SCHEMA s;
    CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL,
        display_name varchar(50) NOT NULL, deleted_at timestamptz, gone int, note text GENERATED ALWAYS AS (label || '!') STORED);
    ALTER TABLE labels DROP COLUMN gone;
    CREATE UNIQUE INDEX labels_live ON labels (code) WHERE deleted_at IS NULL;
    CREATE UNIQUE INDEX labels_lower ON labels (lower(code));
    CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL);
    CREATE UNIQUE INDEX by_index_code ON by_index (code) INCLUDE (id);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
    CREATE TABLE whole (code text, deleted boolean NOT NULL);
    CREATE UNIQUE INDEX whole_live ON whole (code) WHERE NOT deleted;
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE swaps (code text UNIQUE DEFERRABLE); ALTER TABLE swaps REPLICA IDENTITY FULL;
    CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, code text);
    CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE parts (id int, code text NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
    CREATE TABLE parts_2a PARTITION OF parts_2 FOR VALUES FROM (10) TO (15);
    ALTER TABLE parts_2a REPLICA IDENTITY FULL;
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
    CREATE TABLE short_rows (id int PRIMARY KEY, code varchar(50));
    CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
    CREATE TABLE secret (id int PRIMARY KEY); ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE TABLE twice (id int PRIMARY KEY, code text, deleted boolean);
    CREATE DOMAIN flag AS boolean; CREATE DOMAIN flags AS flag;
    CREATE TABLE hidden (id int PRIMARY KEY, code text, flag flag, flags flags, mood int);
    INSERT INTO twice VALUES (1, 'a', NULL), (2, 'a', false), (3, 'b', true), (4, 'b', false), (5, NULL, false), (6, NULL, false);
    CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN short AS varchar(3) NOT NULL;
    CREATE TABLE types (a mood PRIMARY KEY, b short, c text COLLATE \"C\", d numeric(10,2), e char(4), f int[], g mood[]);
    CREATE ROLE reader LOGIN; CREATE ROLE streamer LOGIN REPLICATION; GRANT USAGE ON SCHEMA s TO streamer; GRANT SELECT ON labels TO streamer;

    CREATE TABLE lookup (code citext PRIMARY KEY, label varchar(50) NOT NULL, n int DEFAULT 1, i int GENERATED ALWAYS AS IDENTITY,
        g int GENERATED ALWAYS AS (1) STORED, c text COLLATE \"C\", m mood NOT NULL);
    CREATE UNIQUE INDEX lookup_partial ON lookup (label) WHERE n > 1;
    CREATE UNIQUE INDEX lookup_expression ON lookup (lower(label));
    CREATE UNIQUE INDEX lookup_label ON lookup (label, n) INCLUDE (i);
    ALTER TABLE lookup ADD CONSTRAINT lookup_late UNIQUE (n) DEFERRABLE;
    CREATE TABLE referring (code citext REFERENCES lookup);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER changes BEFORE INSERT ON lookup FOR EACH ROW EXECUTE FUNCTION f();
    CREATE TRIGGER off BEFORE INSERT ON lookup FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE lookup DISABLE TRIGGER off;
    CREATE TRIGGER only_delete BEFORE DELETE ON lookup FOR EACH ROW EXECUTE FUNCTION f();
    CREATE VIEW v AS SELECT 1;
    RESET search_path;
";

async fn source_table(client: &tokio_postgres::Client, name: &str) -> SourceTable {
    source::facts::table(client, &TableName::new("s", name))
        .await
        .unwrap()
        .unwrap()
}

async fn lookup_table(conn: &mut Connection, name: &str) -> LookupTable {
    target::facts::table(conn, &TableName::new("s", name))
        .await
        .unwrap()
        .unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "current_thread")]
async fn catalogs_are_read_as_they_are() {
    let cluster = Cluster::start("facts");
    let admin = cluster.source("postgres").await;
    admin.batch_execute(SCHEMA).await.unwrap();
    servers_and_roles(&cluster, &admin).await;
    source_tables(&cluster, &admin).await;
    identities(&admin).await;
    slots_and_publications(&admin).await;
    publication_is_made_and_extended(&cluster, &admin).await;
    lookup_tables(&cluster).await;
    missing_lookup_table_is_made(&cluster, &admin).await;
}

async fn servers_and_roles(cluster: &Cluster, admin: &tokio_postgres::Client) {
    let server = source::facts::server(admin).await.unwrap();
    assert!(
        server.version >= 130_000
            && !server.in_recovery
            && server.may_replicate
            && server.may_create
    );
    assert_eq!(
        (server.wal_level.as_str(), server.encoding.as_str()),
        ("logical", "UTF8")
    );
    assert_eq!((server.slots, server.wal_senders), ((0, 10), (0, 10)));
    assert_eq!(server.max_slot_wal_keep_size_mb, -1);
    let reader = cluster.source("reader").await;
    let server = source::facts::server(&reader).await.unwrap();
    assert!(!server.may_replicate && !server.may_create);
    assert_eq!(server.user, "reader");
    let streamer = source::facts::server(&cluster.source("streamer").await)
        .await
        .unwrap();
    assert!(streamer.may_replicate && !streamer.may_create);

    let mut reader = cluster.target("reader").await;
    let server = target::facts::server(&mut reader, "cdc").await.unwrap();
    assert!(!server.may_create && server.may_use_temporary && !server.bookkeeping_exists);
    assert!(server.bookkeeping_usable, "true where there is no schema");
    let server = target::facts::server(&mut reader, "s").await.unwrap();
    assert!(server.bookkeeping_exists && !server.bookkeeping_usable);
}

async fn source_tables(cluster: &Cluster, admin: &tokio_postgres::Client) {
    let labels = source_table(admin, "labels").await;
    assert_eq!((labels.kind, labels.persistence), ('r', 'p'));
    assert_eq!(labels.primary_key, names(&["id"]));
    assert!(labels.may_select && labels.owned && !labels.has_inheritance_children);
    let columns: Vec<_> = labels
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(
        columns,
        ["id", "code", "label", "display_name", "deleted_at", "note"],
        "without the dropped one"
    );
    let code = labels.column("code").unwrap();
    assert_eq!(
        (code.number, code.type_name.as_str()),
        (2, "character varying(10)")
    );
    assert_eq!(code.bare_type_name, "character varying");
    assert!(code.not_null && code.toastable && code.builtin && code.collatable && !code.generated);
    assert!(!labels.column("id").unwrap().toastable);
    assert!(labels.column("note").unwrap().generated);
    let live = labels
        .unique_indexes
        .iter()
        .find(|index| index.name == "labels_live")
        .unwrap();
    assert_eq!(live.columns, names(&["code"]));
    assert_eq!(live.predicate.as_deref(), Some("(deleted_at IS NULL)"));
    let lower = labels
        .unique_indexes
        .iter()
        .find(|index| index.name == "labels_lower")
        .unwrap();
    assert!(lower.columns.is_empty());

    let types = source_table(admin, "types").await;
    let type_names: Vec<_> = types
        .columns
        .iter()
        .map(|column| column.type_name.as_str())
        .collect();
    assert_eq!(
        type_names,
        [
            "s.mood",
            "s.short",
            "text",
            "numeric(10,2)",
            "character(4)",
            "integer[]",
            "s.mood[]"
        ]
    );
    assert_eq!(types.column("e").unwrap().bare_type_name, "bpchar");
    let builtin: Vec<_> = types.columns.iter().map(|column| column.builtin).collect();
    assert_eq!(builtin, [false, false, true, true, true, true, false]);
    assert!(
        types.column("b").unwrap().not_null,
        "the domain's NOT NULL counts"
    );

    assert!(source_table(admin, "parent").await.has_inheritance_children);
    assert_eq!(source_table(admin, "fast").await.persistence, 'u');
    assert_eq!(source_table(admin, "v").await.kind, 'v');
    assert!(
        source::facts::table(admin, &TableName::new("s", "x".repeat(100)))
            .await
            .unwrap()
            .is_none()
    );

    let reader = cluster.source("reader").await;
    let labels = source_table(&reader, "labels").await;
    assert!(!labels.may_select && !labels.owned);
    assert!(source_table(&reader, "secret").await.row_security_applies);
    assert!(!source_table(admin, "secret").await.row_security_applies);
    assert!(
        source_table(&cluster.source("streamer").await, "labels")
            .await
            .may_select
    );

    let hidden = source_table(admin, "hidden").await;
    let booleans: Vec<_> = hidden.columns.iter().map(|column| column.boolean).collect();
    assert_eq!(
        booleans,
        [false, false, true, true, false],
        "a domain over boolean is boolean"
    );
    assert_eq!(
        source::facts::live_condition(&hidden, Some("flags"), &names(&["code"])),
        "\"flags\" IS NOT TRUE AND \"code\" IS NOT NULL"
    );

    let twice = source_table(admin, "twice").await;
    let count =
        source::facts::duplicate_live_keys(admin, &twice, Some("deleted"), &names(&["code"])).await;
    assert_eq!(
        count.unwrap(),
        1,
        "null is not true, so both rows of a are live"
    );
    for (soft_delete, key, expected) in [
        (Some("deleted"), "code", 2),
        (None, "code", 2),
        (None, "id", 0),
    ] {
        let count =
            source::facts::rows_without_key(admin, &twice, soft_delete, &names(&[key])).await;
        assert_eq!(count.unwrap(), expected, "{key}, {soft_delete:?}");
    }
}

async fn identities(admin: &tokio_postgres::Client) {
    let key = names(&["code"]);
    for (name, soft_delete, expected) in [
        (
            "labels",
            Some("deleted_at"),
            Some((Basis::PrimaryKey, "id")),
        ),
        ("by_index", None, Some((Basis::Index, "code"))),
        ("whole", Some("deleted"), Some((Basis::Key, "code"))),
        ("whole", None, None),
        ("swaps", None, None),
        ("late", None, None),
        ("nothing", None, None),
        ("parts", None, Some((Basis::PrimaryKey, "id"))),
    ] {
        let table = source_table(admin, name).await;
        let found = identity(&table, &key, soft_delete).ok();
        let found = found.map(|identity| (identity.basis, identity.columns.join(",")));
        assert_eq!(
            found,
            expected.map(|(basis, columns)| (basis, columns.to_owned())),
            "{name}"
        );
    }
    let late = source_table(admin, "late").await;
    assert!(late.deferrable_primary_key && late.primary_key.is_empty());
    let column = async |table: &str, column: &str| {
        source_table(admin, table)
            .await
            .column(column)
            .unwrap()
            .clone()
    };
    // A leaf may hold what the root cannot; rows that are always short hold nothing out of line.
    assert!(column("parts", "code").await.toastable && !column("parts", "id").await.toastable);
    assert!(!column("short_rows", "code").await.toastable);
    let parts = source_table(admin, "parts").await;
    assert_eq!(parts.kind, 'p');
    let leaves: Vec<_> = parts
        .leaves
        .iter()
        .map(|leaf| (leaf.name.name.as_str(), leaf.replica_identity))
        .collect();
    assert_eq!(
        leaves,
        [
            ("parts_1", ReplicaIdentity::Default),
            ("parts_2a", ReplicaIdentity::Full)
        ]
    );
    assert_eq!(parts.leaves[0].identity_columns, names(&["id"]));
    assert!(parts.leaves[1].identity_columns.is_empty() && parts.leaves[1].has_primary_key);
    assert!(
        parts
            .leaves
            .iter()
            .all(|leaf| (leaf.kind, leaf.persistence) == ('r', 'p'))
    );
    let leaf = source_table(admin, "parts_2a").await;
    let roots: Vec<_> = leaf
        .partition_of
        .iter()
        .map(|root| root.name.as_str())
        .collect();
    assert_eq!(
        (roots, parts.partition_of.len()),
        (vec!["parts_2", "parts"], 0)
    );
}

async fn slots_and_publications(admin: &tokio_postgres::Client) {
    assert!(source::facts::slot(admin, "cdc").await.unwrap().is_none());
    admin
        .batch_execute("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
        .await
        .unwrap();
    let slot = source::facts::slot(admin, "cdc").await.unwrap().unwrap();
    assert_eq!(slot.plugin.as_deref(), Some("pgoutput"));
    assert_eq!(slot.database.as_deref(), Some("postgres"));
    assert_eq!((slot.active_pid, slot.invalidation_reason), (None, None));
    assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
    assert!(slot.restart_lsn.is_some() && slot.confirmed_flush_lsn.is_some());
    assert!(slot.held_bytes.is_some_and(|bytes| bytes >= 0));
    assert!(source::facts::current_wal(admin).await.unwrap() >= slot.confirmed_flush_lsn.unwrap());
    admin
        .batch_execute("SELECT pg_drop_replication_slot('cdc')")
        .await
        .unwrap();

    // Column lists and row filters are there from 15 on.
    if source::facts::server(admin).await.unwrap().version < 150_000 {
        return;
    }
    admin
        .batch_execute(
            "CREATE PUBLICATION foreign_one FOR TABLE s.labels (id, code), s.by_index WHERE (code > 'a'), s.parts
             WITH (publish = 'insert, update', publish_via_partition_root)",
        )
        .await
        .unwrap();
    let publication = source::facts::publication(admin, "foreign_one")
        .await
        .unwrap()
        .unwrap();
    assert!(
        publication.insert && publication.update && !publication.delete && !publication.truncate
    );
    assert!(
        publication.via_root
            && publication.owned
            && publication.comment.is_none()
            && !publication.all_tables
    );
    let tables: Vec<_> = publication
        .tables
        .iter()
        .map(|table| {
            (
                table.table.name.as_str(),
                table.columns.clone(),
                table.row_filter.is_some(),
            )
        })
        .collect();
    assert_eq!(
        tables,
        [
            ("by_index", None, true),
            ("labels", Some(names(&["id", "code"])), false),
            ("parts", None, false)
        ]
    );
    let labels = source_table(admin, "labels").await;
    assert_eq!(
        source::facts::publications_of(admin, &labels)
            .await
            .unwrap(),
        [publication]
    );
    admin
        .batch_execute("DROP PUBLICATION foreign_one")
        .await
        .unwrap();
    assert!(
        source::facts::publication(admin, "foreign_one")
            .await
            .unwrap()
            .is_none()
    );
}

fn settings(tables: &[&str]) -> Settings {
    let model = |name: &&str| ReadModelSettings {
        source: TableName::new("s", *name),
        target: TableName::new("s", format!("{name}_lookup")),
        ..ReadModelSettings::labels()
    };
    Settings {
        source: SourceSettings {
            conninfo: Default::default(),
            publication: "cdc".to_owned(),
            slot: "cdc".to_owned(),
            max_retained_wal: None,
            failover: true,
            publish_projected_columns: false,
        },
        target: TargetSettings {
            conninfo: Default::default(),
            schema: "cdc".to_owned(),
            synchronous_commit: true,
        },
        read_models: tables.iter().map(model).collect(),
        resync: ResyncSettings::default(),
        status_interval: std::time::Duration::from_secs(10),
        log_level: "info".to_owned(),
    }
}

async fn publication_is_made_and_extended(cluster: &Cluster, admin: &tokio_postgres::Client) {
    let labels = source_table(admin, "labels").await;
    let streamer = cluster.source("streamer").await;
    let ownership = Bookkeeping::new("cdc")
        .ownership(&mut cluster.target("postgres").await, "cdc")
        .await
        .unwrap();
    let ensure =
        async |client: &tokio_postgres::Client, settings: &Settings, tables: &[SourceTable]| {
            source::publication::ensure(client, settings, tables, &ownership)
                .await
                .unwrap()
        };
    // The role owns nothing, as far as it says itself, and as far as the server says.
    let not_owned = SourceTable {
        owned: false,
        ..labels.clone()
    };
    for table in [&labels, &not_owned] {
        let denied = ensure(
            &streamer,
            &settings(&["labels"]),
            std::slice::from_ref(table),
        )
        .await;
        assert_eq!(denied.executed, Vec::<String>::new());
        assert!(!denied.exists && denied.lacking.len() == 1);
        let denied = denied.refusal.unwrap();
        assert!(
            denied.hint().unwrap().contains("CREATE PUBLICATION"),
            "{denied:?}"
        );
    }
    let done = ensure(admin, &settings(&["labels"]), std::slice::from_ref(&labels)).await;
    assert_eq!(done.executed.len(), 2, "{done:?}");
    assert!(done.exists && done.is_marked && done.refusal.is_none());
    let made = source::facts::publication(admin, "cdc")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        ownership.maker(made.comment.as_deref()),
        Maker::ThisPipeline
    );
    let parts = source_table(admin, "parts").await;
    let both = settings(&["labels", "parts"]);
    let tables = [labels, parts];
    assert_eq!(
        ensure(admin, &both, &tables).await.executed.len(),
        2,
        "via the root, and the table"
    );
    assert!(
        ensure(admin, &both, &tables).await.executed.is_empty(),
        "the second time there is nothing to do"
    );
    let nothing = source_table(admin, "nothing").await;
    let with_nothing = settings(&["labels", "nothing"]);
    let refused = ensure(admin, &with_nothing, &[tables[0].clone(), nothing]).await;
    assert_eq!(refused.executed, Vec::<String>::new());
    assert_eq!(
        refused
            .lacking
            .iter()
            .map(|(place, _)| *place)
            .collect::<Vec<_>>(),
        [1]
    );
    // What is promised: the application's writes go on.
    admin
        .batch_execute("INSERT INTO s.labels VALUES (gen_random_uuid(), 'MR', 'Mr', 'Mister'); UPDATE s.labels SET label = 'M'; DELETE FROM s.labels")
        .await
        .unwrap();
}

async fn lookup_tables(cluster: &Cluster) {
    let mut conn = cluster.target("postgres").await;
    let lookup = lookup_table(&mut conn, "lookup").await;
    assert_eq!((lookup.kind, lookup.persistence), ('r', 'p'));
    assert_eq!(lookup.triggers, ["trigger changes"]);
    assert_eq!(lookup.referenced_by, [TableName::new("s", "referring")]);
    assert!(lookup.missing_privileges.is_empty() && !lookup.row_security_applies);
    let indexes: Vec<_> = lookup
        .unique_indexes
        .iter()
        .map(|index| index.name.as_str())
        .collect();
    assert_eq!(
        indexes,
        ["lookup_pkey", "lookup_label"],
        "immediate, whole, plain columns"
    );
    let key = lookup.key_index(&names(&["code"])).unwrap();
    assert!(key.primary);
    assert_eq!(
        key.columns[0].equality, "OPERATOR(\"s\".=)",
        "citext has an equality of its own"
    );
    let label = lookup.key_index(&names(&["n", "label"])).unwrap();
    assert_eq!(label.columns.len(), 2);
    assert_eq!(label.columns[0].equality, "OPERATOR(\"pg_catalog\".=)");
    let column = |name: &str| lookup.column(name).unwrap();
    assert_eq!(
        (
            column("code").type_name.as_str(),
            column("m").type_name.as_str()
        ),
        ("s.citext", "s.mood")
    );
    assert!(column("n").has_default && !column("n").generated);
    assert!(
        column("i").generated
            && column("g").generated
            && column("i").has_default
            && column("g").has_default
    );
    assert_eq!(
        column("c").collation.as_deref(),
        Some("\"pg_catalog\".\"C\"")
    );
    assert_eq!(column("label").collation, None);
    assert!(column("label").collatable && !column("n").collatable && column("m").not_null);

    let mut reader = cluster.target("reader").await;
    let lookup = lookup_table(&mut reader, "lookup").await;
    assert_eq!(
        lookup.missing_privileges,
        ["SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"]
    );
    assert_eq!(lookup_table(&mut conn, "fast").await.persistence, 'u');
    assert!(
        target::facts::table(&mut conn, &TableName::new("s", "nowhere"))
            .await
            .unwrap()
            .is_none()
    );
}

async fn missing_lookup_table_is_made(cluster: &Cluster, admin: &tokio_postgres::Client) {
    let mut conn = cluster.target("postgres").await;
    let model = ReadModelSettings {
        source: TableName::new("s", "labels"),
        target: TableName::new("public", "labels_lookup"),
        ..ReadModelSettings::labels()
    };
    let labels = source_table(admin, "labels").await;
    target::lookup::create(&mut conn, &model, &labels)
        .await
        .unwrap();
    let made = target::facts::table(&mut conn, &model.target)
        .await
        .unwrap()
        .unwrap();
    let columns: Vec<_> = made
        .columns
        .iter()
        .map(|column| {
            (
                column.name.as_str(),
                column.type_name.as_str(),
                column.not_null,
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            ("code", "character varying(10)", true),
            ("label", "character varying(50)", true),
            ("display_name", "character varying(50)", true),
            ("updated_at", "timestamp with time zone", true)
        ]
    );
    assert!(made.key_index(&model.key).unwrap().primary);

    let nowhere = ReadModelSettings {
        target: TableName::new("nowhere", "l"),
        ..model.clone()
    };
    let error = target::lookup::create(&mut conn, &nowhere, &labels)
        .await
        .unwrap_err();
    assert!(error.hint().unwrap().contains("CREATE SCHEMA"), "{error:?}");
    let mut strange = labels.clone();
    strange.columns[1].builtin = false;
    strange.columns[1].bare_type_name = "s.missing".to_owned();
    let error = target::lookup::create(&mut conn, &model, &strange)
        .await
        .unwrap_err();
    assert!(error.message().contains("s.missing"), "{error:?}");
}
