//! What the watch knows of one read model, and what follows from another look.

use std::collections::BTreeSet;

use crate::lsn::Lsn;
use crate::read_model::{ModelId, ReadModel};
use crate::run::bind::Bound;
use crate::source::watch::Look;
use crate::sql::TableName;
use crate::target::bookkeeping::Stored;

/// The table or its leaves have another file, and it is not known yet whether the stream has
/// brought the reason.
const ANOTHER_FILE: &str = "the source's table has another file";

/// The stream has brought changes of a leaf, and it is not known whether the leaf still belongs to
/// the table.
const A_LEAF: &str = "the stream has brought changes of a partition that came or went";

/// Values are shown with another text, and no row of them is in the stream.
const ANOTHER_TEXT: &str = "the text of a type's values has changed at the source";

/// A read model as the watch sees it.
#[derive(Debug)]
pub(super) struct Watched {
    /// Number in the bookkeeping.
    pub(super) id: ModelId,
    pub(super) source: TableName,
    pub(super) lookup: TableName,
    /// Columns of the source that are used; `None` if they are not known, since the read model is
    /// not bound.
    used: Option<Vec<String>>,
    /// What was seen when lookup and source were last known to go together.
    pub(super) look: Look,
    /// The end of the WAL at the look before that. A TRUNCATE that `look` did not see may still be
    /// before its end: the end is read after the catalogs, and a commit is in the WAL before it is
    /// seen, long before if it waits for a standby.
    from: Lsn,
    /// A look with another file, for which the stream may bring the reason.
    rewritten: Option<Look>,
    /// Whether the stream has brought changes of a leaf that no look before `rewritten` has seen.
    unseen: bool,
    /// The lookup's columns and indexes.
    pub(super) shape: String,
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing.
    Same,
    /// The publication is another one: the session begins again.
    Publication,
    /// The table is another one: the session begins again.
    Altered,
    /// A resync will show whether rows changed, for this reason.
    Resync(&'static str),
    /// The new files are as good as the old ones.
    Passed,
}

impl Watched {
    pub(super) fn new(bound: &Bound, look: Look, shape: String) -> Self {
        Self {
            id: bound.id,
            source: bound.settings.source.clone(),
            lookup: bound.settings.target.clone(),
            used: bound
                .model
                .as_ref()
                .ok()
                .map(|model| model.model.source_columns()),
            look,
            from: Lsn::ZERO,
            rewritten: None,
            unseen: false,
            shape,
        }
    }

    /// Compares with a look of now; `unseen` says whether the stream has brought changes of a leaf
    /// that no look has seen.
    pub(super) fn see(&mut self, now: Look, unseen: bool) -> Seen {
        let used = self.used.as_deref();
        let before = &self.look;
        if before.publication != now.publication || before.published != now.published {
            return Seen::Publication;
        }
        if !now.is_same_table(before, used) {
            return Seen::Altered;
        }
        if !before.texts_of(used).is_subset(&now.texts_of(used)) {
            self.go_on_from(now);
            return Seen::Resync(ANOTHER_TEXT);
        }
        if before.storage != now.storage || unseen {
            self.unseen |= unseen;
            self.rewritten = Some(now);
        } else if self.rewritten.is_none() {
            self.from = self.look.wal_end;
            self.look = now;
        }
        Seen::Same
    }

    /// What follows from another file, once the stream has passed the position at which it was
    /// seen. `truncated` is the commit of the last TRUNCATE that it brought.
    pub(super) fn pass(&mut self, position: Lsn, truncated: Lsn) -> Seen {
        let Some(now) = self.rewritten.take_if(|now| now.wal_end <= position) else {
            return Seen::Same;
        };
        // One leaf can be truncated alone, which the stream never brings. A rewrite that changes
        // values has altered a column.
        let by_stream = !self.unseen
            && now.alone
            && self.look.alone
            && truncated > self.from
            && now.has_same_versions(&self.look, self.used.as_deref());
        let unseen = self.unseen;
        self.go_on_from(now);
        if by_stream {
            Seen::Passed
        } else if unseen {
            Seen::Resync(A_LEAF)
        } else {
            Seen::Resync(ANOTHER_FILE)
        }
    }

    /// Whether another file is to be judged once the stream has come further.
    pub(super) fn waits_for_the_stream(&self) -> bool {
        self.rewritten.is_some()
    }

    fn go_on_from(&mut self, now: Look) {
        self.from = self.look.wal_end;
        self.look = now;
        self.rewritten = None;
        self.unseen = false;
    }

    /// The leaves whose loss the watch would notice.
    pub(super) fn leaves(&self) -> &BTreeSet<u32> {
        &self.rewritten.as_ref().unwrap_or(&self.look).parts
    }

    /// What the next session compares with.
    pub(super) fn stored(&self) -> Stored {
        stored(&self.look, self.used.as_deref())
    }
}

/// What the bookkeeping keeps of a look.
pub(super) fn stored(look: &Look, used: Option<&[String]>) -> Stored {
    let texts = look.texts_of(used).into_iter();
    Stored {
        published: Some(look.published.clone()),
        storage: Some(look.storage.clone()),
        texts: Some(
            texts
                .map(|(column, entry)| format!("{column} {entry}"))
                .collect(),
        ),
    }
}

/// Why a resync is due after what happened between two sessions. Values that an earlier version has
/// not stored are not compared.
pub(super) fn resync_for(before: &Stored, now: &Stored) -> Option<&'static str> {
    let texts = |stored: &Stored| stored.texts.clone().unwrap_or_default();
    if before.storage.is_some() && before.storage != now.storage {
        Some(ANOTHER_FILE)
    } else if !texts(before).is_subset(&texts(now)) {
        Some(ANOTHER_TEXT)
    } else {
        None
    }
}

/// Whether this is the table that the read model is bound to, column by column.
pub(super) fn is_bound_to(model: &ReadModel, look: &Look) -> bool {
    look.oid == Some(model.source_oid)
        && model.used_columns().all(|column| {
            let definition = look.columns.get(&column.name);
            definition.is_some_and(|of| {
                of.starts_with(&format!("{}:{}:", column.number, column.type_oid))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(wal_end: u64, storage: &str) -> Look {
        Look {
            oid: Some(1),
            columns: [("id".to_owned(), "1:20:p:t".to_owned())].into(),
            versions: [("id".to_owned(), "700".to_owned())].into(),
            storage: storage.to_owned(),
            alone: true,
            wal_end: Lsn(wal_end),
            ..Look::default()
        }
    }

    fn watched() -> Watched {
        Watched {
            id: ModelId(1),
            source: TableName::new("public", "t"),
            lookup: TableName::new("public", "t_lookup"),
            used: Some(vec!["id".to_owned()]),
            look: look(100, "1:1"),
            from: Lsn(50),
            rewritten: None,
            unseen: false,
            shape: String::new(),
        }
    }

    #[test]
    fn another_file_is_judged_once_the_stream_has_passed_it() {
        type Alter = fn(&mut Look);
        let same: Alter = |_| {};
        let cases: [(&str, u64, Alter, Seen); 6] = [
            ("the stream brought its TRUNCATE", 150, same, Seen::Passed),
            (
                "a TRUNCATE before the last look's end",
                99,
                same,
                Seen::Passed,
            ),
            (
                "one before the look before that",
                50,
                same,
                Seen::Resync(ANOTHER_FILE),
            ),
            ("none", 0, same, Seen::Resync(ANOTHER_FILE)),
            (
                "a rewrite beside it",
                150,
                |now| drop(now.versions.insert("id".to_owned(), "701".to_owned())),
                Seen::Resync(ANOTHER_FILE),
            ),
            (
                "a partition",
                150,
                |now| now.alone = false,
                Seen::Resync(ANOTHER_FILE),
            ),
        ];
        for (case, truncated, alter, expected) in cases {
            let mut watched = watched();
            let mut now = look(200, "1:2");
            alter(&mut now);
            assert_eq!(watched.see(now, false), Seen::Same, "{case}");
            assert_eq!(watched.pass(Lsn(199), Lsn(truncated)), Seen::Same, "{case}");
            assert_eq!(watched.pass(Lsn(200), Lsn(truncated)), expected, "{case}");
            assert_eq!(
                watched.pass(Lsn(300), Lsn::ZERO),
                Seen::Same,
                "it is judged once"
            );
            assert_eq!(watched.look.storage, "1:2");
        }
    }

    #[test]
    fn looks_go_on_from_the_last_one_but_not_from_a_file_that_is_not_judged() {
        let mut watched = watched();
        assert_eq!(watched.see(look(150, "1:1"), false), Seen::Same);
        assert_eq!(watched.see(look(200, "1:2"), false), Seen::Same);
        assert_eq!(watched.see(look(250, "1:3"), false), Seen::Same);
        assert_eq!(
            watched.pass(Lsn(249), Lsn(160)),
            Seen::Same,
            "the newest file counts"
        );
        assert_eq!(watched.pass(Lsn(250), Lsn(100)), Seen::Resync(ANOTHER_FILE));
    }

    #[test]
    fn a_leaf_that_no_look_has_seen_is_judged_as_another_file() {
        let mut watched = watched();
        // The table has no partitions any more, and it was truncated in between: rows that the leaf
        // had brought before are gone, rows that it brought since are not.
        assert_eq!(watched.see(look(200, "1:1"), true), Seen::Same);
        assert!(watched.waits_for_the_stream());
        assert_eq!(watched.see(look(210, "1:1"), false), Seen::Same);
        assert_eq!(watched.pass(Lsn(200), Lsn(150)), Seen::Resync(A_LEAF));
        assert_eq!(watched.pass(Lsn(300), Lsn::ZERO), Seen::Same);
        // The next TRUNCATE is one like all others.
        assert_eq!(watched.see(look(400, "1:2"), false), Seen::Same);
        assert_eq!(watched.pass(Lsn(400), Lsn(350)), Seen::Passed);
    }

    #[test]
    fn texts_count_where_they_are_used_and_new_ones_do_not() {
        let with = |texts: &[(&str, &str)]| Look {
            texts: texts
                .iter()
                .map(|(column, entry)| ((*column).to_owned(), (*entry).to_owned()))
                .collect(),
            ..look(100, "1:1")
        };
        let mut watched = watched();
        watched.look = with(&[("id", "sad"), ("other", "x")]);
        assert_eq!(
            watched.see(with(&[("id", "sad"), ("other", "y")]), false),
            Seen::Same
        );
        assert_eq!(
            watched.see(with(&[("id", "sad"), ("id", "new")]), false),
            Seen::Same
        );
        assert_eq!(
            watched.see(with(&[("id", "sad"), ("id", "newer")]), false),
            Seen::Resync(ANOTHER_TEXT)
        );
        assert_eq!(
            watched.see(with(&[("id", "sad"), ("id", "newer")]), false),
            Seen::Same
        );
    }

    #[test]
    fn another_table_or_publication_ends_the_session() {
        let mut watched = watched();
        let published = Look {
            published: "other".to_owned(),
            ..look(150, "1:1")
        };
        assert_eq!(watched.see(published, false), Seen::Publication);
        let altered = Look {
            columns: [("id".to_owned(), "2:20:p:t".to_owned())].into(),
            ..look(150, "1:1")
        };
        assert_eq!(watched.see(altered, false), Seen::Altered);
    }
}
