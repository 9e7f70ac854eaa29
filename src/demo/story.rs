//! What happens to the labels in the demo, chapter by chapter.

/// One source transaction and what it shows.
#[derive(Debug)]
pub(super) struct Chapter {
    /// What happens, in a few words.
    pub(super) title: &'static str,
    /// The transaction.
    pub(super) statements: &'static [&'static str],
    /// What to look at afterwards.
    pub(super) remark: &'static str,
}

/// The story, in order; each chapter starts where the one before ended.
pub(super) const CHAPTERS: &[Chapter] = &[
    Chapter {
        title: "The text of a label changes",
        statements: &["UPDATE labels SET label = 'Prof. Dr.' WHERE code = 'DR'"],
        remark: "The next report shows it. No service was called, no cache was cleared.",
    },
    Chapter {
        title: "A label is soft-deleted",
        statements: &["UPDATE labels SET deleted_at = now() WHERE code = 'DR'"],
        remark: "The row stays at the source; the lookup has live rows only.",
    },
    Chapter {
        title: "It is restored",
        statements: &["UPDATE labels SET deleted_at = NULL WHERE code = 'DR'"],
        remark: "An update at the source, an insert in the lookup.",
    },
    Chapter {
        title: "A code changes",
        statements: &["UPDATE labels SET code = 'MS', label = 'Ms.' WHERE code = 'MRS'"],
        remark: "The stream names the row by its id only; cdc remembers which key it had.",
    },
    Chapter {
        title: "A row is really deleted",
        statements: &["DELETE FROM labels WHERE code = 'MS'"],
        remark: "No event of the application reports this; the log of the database does.",
    },
    Chapter {
        title: "The table is emptied",
        statements: &["TRUNCATE labels"],
        remark: "The reports lose their titles, as they must, and keep working.",
    },
    Chapter {
        title: "And filled again, in one transaction",
        statements: &[
            "INSERT INTO labels (code, label, display_name) VALUES ('MR', 'Mr.', 'Mister')",
            "INSERT INTO labels (code, label, display_name) VALUES ('DR', 'Dr.', 'Doctor')",
        ],
        remark: "Readers saw both rows or none: the lookup never shows half a transaction.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_the_screen() {
        for chapter in CHAPTERS {
            assert!(chapter.title.len() < 60, "{chapter:?}");
            assert!(chapter.remark.len() < 90, "{chapter:?}");
            for statement in chapter.statements {
                // Two blanks more on the left, the prompt and a semicolon.
                assert!(
                    statement.len() + "    app_master_db> ;".len() < 100,
                    "{statement}"
                );
            }
        }
    }
}
