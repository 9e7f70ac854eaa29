//! Statements, and how they are written for psql.

use std::fmt::Write as _;

use crate::source::{Identity, Kind, Mark, Note, SoftDelete, Storage, Stored, Unique};

/// One column of an UPDATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    Id(u8),
    Code(Option<u8>),
    Label(u32),
    Note(Note),
    Mark(Mark),
}

/// A statement of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Insert(Stored),
    /// Of one row; without columns the row is written again as it is.
    Update {
        id: u8,
        set: Vec<Set>,
    },
    /// Of all rows.
    Relabel(u32),
    Delete(u8),
    Truncate,
    /// An insert into another published table.
    Elsewhere,
    /// Statements behind a savepoint, which is released or rolled back to.
    Savepoint {
        statements: Vec<Statement>,
        kept: bool,
    },
}

impl Statement {
    /// Appends the statement, or what stands between savepoint and its end, one a line.
    pub fn write_sql(&self, kind: Kind, sql: &mut String) {
        let written = match self {
            Self::Insert(row) => {
                let mut values = format!(
                    "{}, {}, {}, {}",
                    row.id,
                    code(kind, row.code),
                    label(row.label),
                    note(row.note)
                );
                if let Some(mark) = mark(kind, row.mark) {
                    let _ = write!(values, ", {mark}");
                }
                format!("INSERT INTO labels VALUES ({values})")
            }
            Self::Update { id, set } => {
                let set: Vec<String> = set
                    .iter()
                    .filter_map(|set| assignment(kind, *set))
                    .collect();
                let set = if set.is_empty() {
                    "label = label".to_owned()
                } else {
                    set.join(", ")
                };
                format!("UPDATE labels SET {set} WHERE id = {id}")
            }
            Self::Relabel(number) => format!("UPDATE labels SET label = {}", label(*number)),
            Self::Delete(id) => format!("DELETE FROM labels WHERE id = {id}"),
            Self::Truncate => "TRUNCATE labels".to_owned(),
            Self::Elsewhere => "INSERT INTO elsewhere VALUES (1)".to_owned(),
            Self::Savepoint { statements, kept } => {
                sql.push_str("SAVEPOINT s;\n");
                for statement in statements {
                    statement.write_sql(kind, sql);
                }
                if *kept {
                    "RELEASE SAVEPOINT s"
                } else {
                    "ROLLBACK TO SAVEPOINT s"
                }
                .to_owned()
            }
        };
        let _ = writeln!(sql, "{written};");
    }
}

/// `None` of a soft-delete column that the table does not have.
fn assignment(kind: Kind, set: Set) -> Option<String> {
    Some(match set {
        Set::Id(id) => format!("id = {id}"),
        Set::Code(value) => format!("code = {}", code(kind, value)),
        Set::Label(number) => format!("label = {}", label(number)),
        Set::Note(value) => format!("note = {}", note(value)),
        Set::Mark(value) => format!("{} = {}", soft_delete(kind)?.0, mark(kind, value)?),
    })
}

fn code(kind: Kind, code: Option<u8>) -> String {
    match code {
        None => "NULL".to_owned(),
        Some(code) if kind.storage == Storage::LongCodes => format!("rpad('C{code}', 200, 'x')"),
        Some(code) => format!("'C{code}'"),
    }
}

fn label(number: u32) -> String {
    format!("'label {number}'")
}

fn note(note: Note) -> String {
    if note.large {
        format!("repeat('note {}, ', 400)", note.number)
    } else {
        format!("'note {}'", note.number)
    }
}

fn mark(kind: Kind, mark: Mark) -> Option<&'static str> {
    let (_, dead) = soft_delete(kind)?;
    Some(match mark {
        Mark::Null => "NULL",
        Mark::False => "false",
        Mark::Dead => dead,
    })
}

/// Name of the soft-delete column, and what marks a dead row.
pub fn soft_delete(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind.soft_delete {
        SoftDelete::Timestamp => Some(("deleted_at", "now()")),
        SoftDelete::Boolean => Some(("deleted", "true")),
        SoftDelete::Absent => None,
    }
}

/// Predicate of an index over live rows, as the catalog prints it.
pub fn live_rows(kind: Kind) -> Option<&'static str> {
    match kind.soft_delete {
        SoftDelete::Timestamp => Some("(deleted_at IS NULL)"),
        SoftDelete::Boolean => Some("(deleted IS NOT TRUE)"),
        SoftDelete::Absent => None,
    }
}

/// The statements that make the tables.
pub fn tables(kind: Kind) -> String {
    let not_null = if kind.identifies_by_code() {
        " NOT NULL"
    } else {
        ""
    };
    let mark = match kind.soft_delete {
        SoftDelete::Timestamp => ", deleted_at timestamptz",
        SoftDelete::Boolean => ", deleted boolean",
        SoftDelete::Absent => "",
    };
    let mut sql = format!(
        "CREATE TABLE labels (id integer NOT NULL, code text{not_null}, label text, note text{mark});\n"
    );
    sql.push_str("CREATE TABLE elsewhere (n integer);\n");
    sql.push_str(match kind.identity {
        Identity::PrimaryKey => "ALTER TABLE labels ADD PRIMARY KEY (id);\n",
        Identity::PrimaryKeyIsKey => {
            "ALTER TABLE labels ADD PRIMARY KEY (code);\nCREATE UNIQUE INDEX ON labels (id);\n"
        }
        Identity::Index => {
            "ALTER TABLE labels ADD PRIMARY KEY (id);\n\
             CREATE UNIQUE INDEX labels_identity ON labels (code, id);\n\
             ALTER TABLE labels REPLICA IDENTITY USING INDEX labels_identity;\n"
        }
        Identity::IndexIsKey => {
            "ALTER TABLE labels ADD PRIMARY KEY (id);\n\
             CREATE UNIQUE INDEX labels_identity ON labels (code);\n\
             ALTER TABLE labels REPLICA IDENTITY USING INDEX labels_identity;\n"
        }
        Identity::Full => {
            "ALTER TABLE labels ADD PRIMARY KEY (id);\nALTER TABLE labels REPLICA IDENTITY FULL;\n"
        }
        Identity::FullAlone => {
            "CREATE UNIQUE INDEX ON labels (id);\nALTER TABLE labels REPLICA IDENTITY FULL;\n"
        }
    });
    let live = live_rows(kind).map_or(String::new(), |live| format!(" WHERE {live}"));
    match kind.unique {
        Unique::AtOnce => {
            let _ = writeln!(
                sql,
                "CREATE UNIQUE INDEX labels_code_live ON labels (code){live};"
            );
        }
        Unique::AtCommit => {
            let _ = writeln!(
                sql,
                "ALTER TABLE labels ADD CONSTRAINT labels_code_live EXCLUDE USING btree (code WITH =){live} \
                 DEFERRABLE INITIALLY DEFERRED;"
            );
        }
        Unique::Never => {}
    }
    sql.push_str(match kind.storage {
        Storage::Plain => {
            "ALTER TABLE labels ALTER code SET STORAGE PLAIN, ALTER label SET STORAGE PLAIN, ALTER note SET STORAGE PLAIN;\n"
        }
        Storage::LongNotes => "ALTER TABLE labels ALTER note SET STORAGE EXTERNAL;\n",
        Storage::LongCodes => {
            "ALTER TABLE labels ALTER code SET STORAGE EXTERNAL, ALTER note SET STORAGE EXTERNAL, SET (toast_tuple_target = 128);\n"
        }
    });
    sql
}
