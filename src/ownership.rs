//! Whose slot and publication it is: this pipeline's, another one's, or another consumer's.
//!
//! In: what the bookkeeping and the comments of publications say. Out: who may alter or drop them.
//! A slot does not name its owner, so the comment of the publication that was created with it does.
//! The comment outlives the bookkeeping, which may be dropped by hand, or be missing after a
//! restore of the target.

use crate::error::Error;
use crate::settings::ReadModelSettings;
use crate::sql::{TableName, ident, literal};

/// How the comment of each publication that `cdc` has created begins.
pub(crate) const COMMENT: &str = "made by cdc";

/// What distinguishes one pipeline from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its slot at the source.
    pub slot: String,
    /// System identifier of the target's cluster.
    pub system_identifier: String,
    /// Database of the target.
    pub database: String,
    /// Schema of its bookkeeping.
    pub schema: String,
}

impl Pipeline {
    /// The comment of its publication.
    pub(crate) fn mark(&self) -> String {
        format!(
            "{COMMENT} for slot {} ({})",
            ident(&self.slot),
            self.bookkeeping()
        )
    }

    fn bookkeeping(&self) -> String {
        format!(
            "bookkeeping: schema {} of database {}, system identifier {}",
            ident(&self.schema),
            ident(&self.database),
            self.system_identifier
        )
    }

    /// Why these read models cannot be kept: the source is the target's own database, and a lookup
    /// is a source table. `cdc` would write its master, and follow what it writes.
    pub(crate) fn own_master(
        &self,
        (system, database): (&str, &str),
        models: &[ReadModelSettings],
    ) -> Option<Error> {
        if self.system_identifier != system || self.database != database {
            return None;
        }
        let mut lookups = models.iter().map(|model| &model.target);
        let table = lookups.find(|lookup| follows_itself(lookup, models))?;
        Some(
            Error::configuration(format!("lookup \"{table}\" is its own source"))
                .with_detail(format!(
                    "Source and target are the same database, \"{database}\": cdc would write its own master."
                ))
                .with_hint(
                    "Give the lookup another name or schema, or correct the URLs of source and target.",
                ),
        )
    }

    /// Which settings must differ for a pipeline beside the one of this comment.
    fn to_change(&self, comment: &str) -> &'static str {
        if comment.contains(&self.bookkeeping()) {
            "source.slot, source.publication and target.schema"
        } else {
            "source.slot and source.publication"
        }
    }
}

/// Whether what is written to this lookup comes back to it, through other read models too.
fn follows_itself(lookup: &TableName, models: &[ReadModelSettings]) -> bool {
    let mut reached = vec![lookup];
    // Each round goes one read model further.
    for _ in models {
        let next = models
            .iter()
            .filter(|model| reached.contains(&&model.source));
        let next: Vec<&TableName> = next.map(|model| &model.target).collect();
        if next.contains(&lookup) {
            return true;
        }
        reached = next;
    }
    false
}

/// What the bookkeeping knows of slot and publication.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// System identifier and database of the source where this pipeline has created its slot, or
    /// was about to.
    pub slot_made_at: Option<(String, String)>,
    /// The comment that it gave its publication last; the pipeline may have another name since.
    pub mark: Option<String>,
    /// The slot that it belongs to, if that is another one.
    pub other_slot: Option<String>,
    /// System identifier and database of the source that a running process reads into it.
    pub reads: Option<(String, String)>,
    /// System identifier and database of the source that the lookups were copied from.
    pub copied_from: Option<(String, String)>,
}

/// What is known to distinguish one pipeline from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// This pipeline.
    pub pipeline: Pipeline,
    /// What its bookkeeping knows.
    pub known: Known,
}

/// Who created a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Maker {
    /// This pipeline, which alters and drops it.
    ThisPipeline,
    /// The pipeline of this comment.
    AnotherPipeline(String),
    /// Not `cdc`.
    Person,
}

impl Ownership {
    /// Who created the publication with this comment. An earlier version named no pipeline: it was
    /// this one.
    pub fn maker(&self, comment: Option<&str>) -> Maker {
        match comment {
            Some(comment) if comment == COMMENT => Maker::ThisPipeline,
            Some(comment) if self.is_mark(comment) => Maker::ThisPipeline,
            Some(comment) if comment.starts_with(COMMENT) => {
                Maker::AnotherPipeline(comment.to_owned())
            }
            Some(_) | None => Maker::Person,
        }
    }

    /// Whether the comment names this pipeline, as it is called now or was before. A person may
    /// have added the rest of it.
    fn is_mark(&self, comment: &str) -> bool {
        comment.starts_with(&self.pipeline.mark())
            || self
                .known
                .mark
                .as_ref()
                .is_some_and(|mark| comment.starts_with(mark))
    }

    /// Whether no running process reads another source than this one (system identifier, database)
    /// into the bookkeeping.
    ///
    /// # Errors
    /// Configuration: one does.
    pub(crate) fn check_reader(&self, source: (&str, &str)) -> Result<(), Error> {
        let schema = &self.pipeline.schema;
        let is_another = |of: &&(String, String)| (of.0.as_str(), of.1.as_str()) != source;
        let Some((system, database)) = self.known.reads.as_ref().filter(is_another) else {
            return Ok(());
        };
        Err(Error::configuration(format!(
                "another pipeline uses the bookkeeping in schema \"{schema}\""
            ))
            .with_detail(format!(
                "Its process reads database \"{database}\", system identifier {system}; this source is database \"{}\", system identifier {}.",
                source.1, source.0
            ))
            .with_hint(
                "Give this pipeline names of its own: target.schema, and lookup tables that no other pipeline keeps. If it is this \
                 pipeline's own process with an earlier configuration, stop that.",
            ))
    }

    /// Whether the bookkeeping is free for a pipeline that reads this source.
    ///
    /// # Errors
    /// Configuration: a running process reads another one into it, or its lookups are of another
    /// one.
    pub(crate) fn check_source(&self, source: (&str, &str)) -> Result<(), Error> {
        self.check_reader(source)?;
        let schema = &self.pipeline.schema;
        let is_another = |of: &&(String, String)| (of.0.as_str(), of.1.as_str()) != source;
        if let Some((system, database)) = self.known.copied_from.as_ref().filter(is_another) {
            return Err(Error::configuration(format!(
                "the lookups of the bookkeeping in schema \"{schema}\" were copied from another source"
            ))
            .with_detail(format!(
                "They are of database \"{database}\", system identifier {system}; this source is database \"{}\", system identifier {}.",
                source.1, source.0
            ))
            .with_hint(
                "If another pipeline keeps them, give this one names of its own: target.schema, and other lookup tables. If this source has \
                 taken the other's place: cdc resync --accept-new-source",
            ));
        }
        Ok(())
    }

    /// Whether a slot of this pipeline's name is its own at this source. `comments` are those of
    /// all publications of the database.
    ///
    /// # Errors
    /// Configuration: it is another's, or not known to be this pipeline's, with what can be done.
    pub(crate) fn check_slot(
        &self,
        source: (&str, &str),
        comments: &[String],
    ) -> Result<(), Error> {
        let known = self.known.slot_made_at.as_ref();
        if known.is_some_and(|(system, database)| (system.as_str(), database.as_str()) == source)
            || comments.iter().any(|comment| self.is_mark(comment))
        {
            return Ok(());
        }
        let slot = &self.pipeline.slot;
        let Some(other) = comments.iter().find(|comment| self.is_of_slot(comment)) else {
            return Err(self.unknown_slot());
        };
        let change = self.pipeline.to_change(other);
        Err(
            Error::configuration(format!("slot \"{slot}\" belongs to another pipeline"))
                .with_detail(format!("Its publication says: {other}."))
                .with_hint(format!("Give this pipeline names of its own: {change}.")),
        )
    }

    /// Whether the comment is of a pipeline whose slot has this name.
    pub(crate) fn is_of_slot(&self, comment: &str) -> bool {
        comment.starts_with(&format!(
            "{COMMENT} for slot {} (",
            ident(&self.pipeline.slot)
        ))
    }

    /// As [`Pipeline::mark`], for a pipeline that is not known because its target cannot be
    /// reached: every publication that `cdc` has created counts as its own.
    pub(crate) fn assumed(slot: &str, schema: &str) -> Self {
        let unknown = String::new();
        Self {
            pipeline: Pipeline {
                slot: slot.to_owned(),
                system_identifier: unknown.clone(),
                database: unknown,
                schema: schema.to_owned(),
            },
            known: Known {
                mark: Some(COMMENT.to_owned()),
                ..Known::default()
            },
        }
    }

    fn unknown_slot(&self) -> Error {
        let slot = &self.pipeline.slot;
        Error::configuration(format!(
            "slot \"{slot}\" exists, and is not known to be this pipeline's"
        ))
        .with_detail(format!(
            "Neither the bookkeeping in schema \"{}\" of the target nor the comment of a publication says so. If another consumer \
             reads it, that one would lose its changes.",
            self.pipeline.schema
        ))
        .with_hint(format!(
            "Choose another name (source.slot). If it is not needed any more: {}; or give it to this pipeline: cdc run --take-slot",
            drop_slot_sql(slot)
        ))
    }

    /// The error where the publication of another pipeline, which has this comment, would have to
    /// be altered.
    pub(crate) fn not_altered(&self, comment: &str, message: &str) -> Error {
        let change = self.pipeline.to_change(comment);
        Error::broken(message)
            .with_detail(format!(
                "The publication belongs to another pipeline, so it is not altered. Its comment says: {comment}."
            ))
            .with_hint(format!("Give this pipeline names of its own: {change}."))
    }
}

/// The statement that drops a slot.
pub(crate) fn drop_slot_sql(slot: &str) -> String {
    format!("SELECT pg_drop_replication_slot({})", literal(slot))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The pipeline of the tests, before the bookkeeping knows it.
    pub(crate) fn ownership() -> Ownership {
        Ownership {
            pipeline: Pipeline {
                slot: "cdc".to_owned(),
                system_identifier: "7".to_owned(),
                database: "reports".to_owned(),
                schema: "cdc".to_owned(),
            },
            known: Known::default(),
        }
    }

    const MARK: &str = "made by cdc for slot \"cdc\" (bookkeeping: schema \"cdc\" of database \"reports\", system identifier 7)";

    #[test]
    fn a_lookup_does_not_follow_itself() {
        let pipeline = ownership().pipeline;
        let model = |source: &str, target: &str| ReadModelSettings {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            ..ReadModelSettings::labels()
        };
        let here = ("7", "reports");
        for (models, place, is_own) in [
            (vec![model("a", "a")], here, true),
            (vec![model("a", "public.a")], here, true),
            (vec![model("a", "b"), model("b", "a")], here, true),
            (
                vec![model("a", "b"), model("b", "c"), model("c", "b")],
                here,
                true,
            ),
            (vec![model("a", "b"), model("b", "c")], here, false),
            (vec![model("a", "b")], here, false),
            (vec![model("a", "reports.a")], here, false),
            (vec![model("a", "a")], ("8", "reports"), false),
            (vec![model("a", "a")], ("7", "master"), false),
        ] {
            let found = pipeline.own_master(place, &models);
            assert_eq!(found.is_some(), is_own, "{models:?} {place:?}");
        }
    }

    #[test]
    fn publication_is_of_the_pipeline_that_its_comment_names() {
        let mut ours = ownership();
        assert_eq!(ours.pipeline.mark(), MARK);
        assert_eq!(ours.maker(Some(MARK)), Maker::ThisPipeline);
        assert_eq!(
            ours.maker(Some(&format!("{MARK}. Ask Ann."))),
            Maker::ThisPipeline
        );
        assert_eq!(ours.maker(Some("made by cdc")), Maker::ThisPipeline);
        assert_eq!(ours.maker(Some("made by Ann")), Maker::Person);
        assert_eq!(ours.maker(None), Maker::Person);
        let others = [
            MARK.replace("identifier 7", "identifier 8"),
            MARK.replace("identifier 7", "identifier 71"),
            MARK.replace("\"reports\"", "\"other\""),
            MARK.replace("schema \"cdc\"", "schema \"cdc_2\""),
            MARK.replace("slot \"cdc\"", "slot \"cdc_2\""),
        ];
        for other in others {
            assert_eq!(
                ours.maker(Some(&other)),
                Maker::AnotherPipeline(other.clone())
            );
            // The target had another name when the comment was written.
            ours.known.mark = Some(other.clone());
            assert_eq!(ours.maker(Some(&other)), Maker::ThisPipeline);
            ours.known.mark = None;
        }
    }

    #[test]
    fn slot_is_ours_if_bookkeeping_or_publication_say_so() {
        let mut ours = ownership();
        let none: [String; 0] = [];
        let here = ("1", "master");
        let unknown = ours.check_slot(here, &none).unwrap_err();
        assert!(
            unknown
                .message()
                .contains("is not known to be this pipeline's")
        );
        let hint = unknown.hint().unwrap();
        for part in [
            "pg_drop_replication_slot('cdc')",
            "cdc run --take-slot",
            "source.slot",
        ] {
            assert!(hint.contains(part), "{hint}");
        }
        // An earlier version named no pipeline, which is no proof for a slot.
        assert!(ours.check_slot(here, &["made by cdc".to_owned()]).is_err());
        assert!(
            ours.check_slot(here, &["notes".to_owned(), MARK.to_owned()])
                .is_ok()
        );
        ours.known.slot_made_at = Some(("1".to_owned(), "master".to_owned()));
        assert!(ours.check_slot(here, &none).is_ok());
        // Another source has been accepted: a slot of this name there was not created by us.
        assert!(ours.check_slot(("2", "master"), &none).is_err());
        assert!(ours.check_slot(("1", "other"), &none).is_err());
    }

    #[test]
    fn the_bookkeeping_of_another_source_is_not_free() {
        let mut ours = ownership();
        let (here, there) = (("1", "master"), ("2".to_owned(), "master".to_owned()));
        assert!(ours.check_source(here).is_ok());
        ours.known.copied_from = Some(there.clone());
        let error = ours.check_source(here).unwrap_err();
        assert!(
            error.hint().unwrap().contains("--accept-new-source"),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("target.schema"), "{error:?}");
        ours.known.reads = Some(there);
        let error = ours.check_source(here).unwrap_err();
        assert!(
            error.message().contains("another pipeline uses"),
            "{error:?}"
        );
        assert!(
            !error.hint().unwrap().contains("--accept-new-source"),
            "{error:?}"
        );
        assert!(ours.check_source(("2", "master")).is_ok());
        assert!(ours.check_source(("2", "other")).is_err());
    }

    #[test]
    fn who_uses_the_names_of_another_pipeline_is_told_which_to_change() {
        let ours = ownership();
        for (other, change) in [
            (
                MARK.replace("identifier 7", "identifier 8"),
                "source.slot and source.publication.",
            ),
            (
                MARK.replace("\"reports\"", "\"other\""),
                "source.slot and source.publication.",
            ),
        ] {
            let error = ours
                .check_slot(("1", "master"), std::slice::from_ref(&other))
                .unwrap_err();
            assert_eq!(error.message(), "slot \"cdc\" belongs to another pipeline");
            assert!(error.detail().unwrap().contains(&other), "{error:?}");
            assert!(error.hint().unwrap().ends_with(change), "{error:?}");
        }
        // The same bookkeeping, by another slot.
        let other = MARK.replace("slot \"cdc\"", "slot \"cdc_2\"");
        let error = ours.not_altered(&other, "publication \"cdc\" lacks something");
        assert!(
            error.hint().unwrap().contains("and target.schema"),
            "{error:?}"
        );
    }
}
