//! What one layer says, not yet judged: every value with its place.

use super::Flags;

/// A value and its place: `cdc.toml:3: source.url`, `CDC_SLOT`, `--source-url`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given<T = String> {
    pub(super) value: T,
    pub(super) origin: String,
}

/// A secret that is given here, or in a file of its own.
#[derive(Clone, PartialEq)]
pub(super) enum Kept {
    Here(String),
    InFile(String),
}

/// A secret stays out of `Debug`.
impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here(****)"),
            Self::InFile(file) => write!(f, "InFile({file:?})"),
        }
    }
}

/// What one layer says about one database.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) url: Option<Given<Kept>>,
    pub(super) password: Option<Given<Kept>>,
}

impl Side {
    fn over(self, lower: Self) -> Self {
        Self {
            url: self.url.or(lower.url),
            password: self.password.or(lower.password),
        }
    }
}

/// What one layer says.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) source: Side,
    pub(super) target: Side,
    pub(super) publication: Option<Given>,
    pub(super) slot: Option<Given>,
    pub(super) publish_columns: Option<Given>,
    pub(super) max_retained_wal: Option<Given>,
    pub(super) failover: Option<Given>,
    pub(super) schema: Option<Given>,
    pub(super) synchronous_commit: Option<Given>,
    pub(super) on_row_error: Option<Given>,
    pub(super) read_models: Option<Vec<RawReadModel>>,
    pub(super) schedule: Option<Given>,
    pub(super) timezone: Option<Given>,
    pub(super) jitter: Option<Given>,
    pub(super) status_interval: Option<Given>,
    pub(super) log_level: Option<Given>,
}

/// One `[[read_model]]`.
#[derive(Debug, Default)]
pub(super) struct RawReadModel {
    /// Where it begins.
    pub(super) origin: String,
    pub(super) source: Option<Given>,
    pub(super) target: Option<Given>,
    pub(super) key: Option<Given<Vec<String>>>,
    /// Names in lookup and source.
    pub(super) columns: Option<Given<Vec<(String, String)>>>,
    pub(super) soft_delete: Option<Given>,
    pub(super) synced_at: Option<Given>,
    pub(super) on_row_error: Option<Given>,
}

impl Raw {
    pub(super) fn from_flags(flags: &Flags) -> Self {
        let side = |url: &Option<String>, flag: &str| Side {
            url: url.as_ref().map(|url| Given {
                value: Kept::Here(url.clone()),
                origin: flag.to_owned(),
            }),
            password: None,
        };
        Self {
            source: side(&flags.source_url, "--source-url"),
            target: side(&flags.target_url, "--target-url"),
            log_level: flags.log_level.clone().map(|value| Given {
                value,
                origin: "--log-level or CDC_LOG".to_owned(),
            }),
            ..Self::default()
        }
    }

    /// This layer, with the gaps filled from a lower one.
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            source: self.source.over(lower.source),
            target: self.target.over(lower.target),
            publication: self.publication.or(lower.publication),
            slot: self.slot.or(lower.slot),
            publish_columns: self.publish_columns.or(lower.publish_columns),
            max_retained_wal: self.max_retained_wal.or(lower.max_retained_wal),
            failover: self.failover.or(lower.failover),
            schema: self.schema.or(lower.schema),
            synchronous_commit: self.synchronous_commit.or(lower.synchronous_commit),
            on_row_error: self.on_row_error.or(lower.on_row_error),
            read_models: self.read_models.or(lower.read_models),
            schedule: self.schedule.or(lower.schedule),
            timezone: self.timezone.or(lower.timezone),
            jitter: self.jitter.or(lower.jitter),
            status_interval: self.status_interval.or(lower.status_interval),
            log_level: self.log_level.or(lower.log_level),
        }
    }
}
