//! The tables of the campaign, and the shape that they have at some moment of a group's history.
//!
//! A group is a schema of its own with two source tables: `items`, an ordinary table with a soft
//! delete that two read models follow, and `parts`, a partitioned one. Each group has one writer,
//! so the order of its commits is known.

/// Where every row of a group may come from.
pub const REGIONS: [&str; 3] = ["a", "b", "c"];

/// A label of the enum `mood`, beside one that is never altered.
pub const MOOD: &str = "calm";

/// A read model of a group.
#[derive(Debug)]
pub struct Model {
    /// Name of the lookup table.
    pub lookup: &'static str,
    /// Columns, which have the same names at both sides.
    pub columns: &'static str,
    key: &'static str,
    source: &'static str,
    soft_delete: bool,
}

/// The read models of a group.
pub const MODELS: [Model; 3] = [
    Model {
        lookup: "items_lookup",
        columns: "code, label, name, amount",
        key: "code",
        source: "items",
        soft_delete: true,
    },
    Model {
        lookup: "items_by_id",
        columns: "id, code, amount, mood",
        key: "id",
        source: "items",
        soft_delete: true,
    },
    Model {
        lookup: "parts_lookup",
        columns: "region, code, label",
        key: "region, code",
        source: "parts",
        soft_delete: false,
    },
];

/// Which read models something concerns.
pub type Which = [bool; MODELS.len()];

/// Both read models of the ordinary table.
pub const OF_ITEMS: Which = [true, true, false];
/// The read model of the partitioned table.
pub const OF_PARTS: Which = [false, false, true];

/// What a group's source tables are called and have at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The group's schema.
    pub schema: String,
    /// Name of the ordinary table, with its schema.
    pub items: String,
    /// Its columns that may be away or have another name.
    pub label: Option<String>,
    pub name: Option<String>,
    pub amount: Option<String>,
    pub deleted_at: Option<String>,
    /// Partitions that are attached.
    pub regions: Vec<&'static str>,
    /// A label of the enum's two.
    pub mood: &'static str,
}

impl Shape {
    /// As the read models want it.
    pub fn canonical(schema: &str) -> Self {
        let column = |name: &str| Some(name.to_owned());
        Self {
            schema: schema.to_owned(),
            items: format!("{schema}.items"),
            label: column("label"),
            name: column("name"),
            amount: column("amount"),
            deleted_at: column("deleted_at"),
            regions: REGIONS.to_vec(),
            mood: MOOD,
        }
    }

    /// The name of the partitioned table.
    pub fn parts(&self) -> String {
        format!("{}.parts", self.schema)
    }

    /// The condition under which a row is live.
    pub fn live(&self) -> String {
        match &self.deleted_at {
            Some(column) => format!("{column} IS NULL"),
            None => "true".to_owned(),
        }
    }

    /// Which read models can be filled from tables of this shape.
    pub fn readable(&self) -> Which {
        let canonical = Self::canonical(&self.schema);
        let by_id = self.items == canonical.items
            && self.amount == canonical.amount
            && self.deleted_at == canonical.deleted_at;
        let items = by_id && self.label == canonical.label && self.name == canonical.name;
        [items, by_id, true]
    }
}

/// What the lookup of a read model shall show, from tables that it can be filled from.
pub fn expected(schema: &str, model: usize) -> String {
    let Model {
        columns,
        source,
        soft_delete,
        ..
    } = &MODELS[model];
    let live = if *soft_delete {
        " WHERE deleted_at IS NULL"
    } else {
        ""
    };
    format!("SELECT {columns} FROM {schema}.{source}{live}")
}

/// The section of the configuration file.
pub fn config(schema: &str) -> String {
    let list = |names: &str| format!("['{}']", names.replace(", ", "', '"));
    let mut config = String::new();
    for model in &MODELS {
        config.push_str(&format!(
            "\n[[read_model]]\nsource = '{schema}.{}'\ntarget = '{schema}.{}'\nkey = {}\ncolumns = {}\n",
            model.source,
            model.lookup,
            list(model.key),
            list(model.columns)
        ));
        if model.soft_delete {
            config.push_str("soft_delete = 'deleted_at'\n");
        }
    }
    config
}

/// The statements that make a group's source tables.
pub fn source_sql(schema: &str) -> String {
    format!(
        "CREATE SCHEMA {schema}; CREATE SCHEMA {schema}_away; CREATE TYPE {schema}.mood AS ENUM ('{MOOD}', 'merry'); {}; {}",
        items_sql(schema, &format!("{schema}.items")),
        parts_sql(&format!("{schema}.parts"))
    )
}

/// The statements that make the partitioned table under this name, with its partitions.
pub fn parts_sql(table: &str) -> String {
    let mut sql = format!(
        "CREATE TABLE {table} (id int NOT NULL, region text NOT NULL, code text NOT NULL, label text NOT NULL, \
         PRIMARY KEY (region, id), UNIQUE (region, code)) PARTITION BY LIST (region)"
    );
    for region in REGIONS {
        sql.push_str("; ");
        sql.push_str(&partition_sql(table, region));
    }
    sql
}

/// The statements that make the ordinary table under this name.
pub fn items_sql(schema: &str, table: &str) -> String {
    format!(
        "CREATE TABLE {table} (id int PRIMARY KEY, tag int NOT NULL UNIQUE, code varchar(20) NOT NULL, label varchar(50) NOT NULL, \
         name varchar(50) NOT NULL, amount int NOT NULL, deleted_at timestamptz, mood {schema}.mood); \
         CREATE UNIQUE INDEX ON {table} (code) WHERE deleted_at IS NULL"
    )
}

/// The statement that makes a partition where it belongs.
pub fn partition_sql(table: &str, region: &str) -> String {
    format!("CREATE TABLE {table}_{region} PARTITION OF {table} FOR VALUES IN ('{region}')")
}

/// The statements that make a group's lookup tables.
pub fn target_sql(schema: &str) -> String {
    format!(
        "CREATE SCHEMA {schema};
         CREATE TABLE {schema}.items_lookup (code varchar(20) PRIMARY KEY, label varchar(50), name varchar(50), amount bigint);
         CREATE TABLE {schema}.items_by_id (id int PRIMARY KEY, code varchar(20), amount bigint, mood text);
         CREATE TABLE {schema}.parts_lookup (region text, code text, label text, PRIMARY KEY (region, code))"
    )
}
