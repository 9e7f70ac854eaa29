//! The consumers that are compared: `cdc`, and PostgreSQL's own subscription without and with a
//! trigger.
//!
//! Each has a target database of its own.

use anyhow::Result;
use cdc::cluster::Cluster;
use tokio_postgres::Client;

use crate::support::follower::{Follower, Kind};
use crate::support::{compare, connect, labels};

/// What consumes the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// `cdc` with synchronous_commit = off, as native replication has it.
    Cdc,
    /// `cdc` as it is by default.
    CdcDurable,
    /// A subscription of the master's rows.
    Native,
    /// A subscription with a trigger that keeps the lookup.
    Trigger,
}

/// All of them.
pub const SUBJECTS: [Subject; 4] = [
    Subject::Cdc,
    Subject::Native,
    Subject::Trigger,
    Subject::CdcDurable,
];

/// The least that keeps a lookup of live rows beside a subscription.
const TRIGGER: &str = "
CREATE TABLE labels (id uuid PRIMARY KEY, code varchar(10) NOT NULL, label varchar(50) NOT NULL,
    display_name varchar(50) NOT NULL, deleted_at timestamptz);
CREATE FUNCTION keep_lookup() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' AND OLD.deleted_at IS NULL THEN
        IF TG_OP = 'DELETE' THEN
            DELETE FROM public.labels_lookup WHERE code = OLD.code;
            RETURN NULL;
        ELSIF NEW.deleted_at IS NOT NULL OR NEW.code <> OLD.code THEN
            DELETE FROM public.labels_lookup WHERE code = OLD.code;
        END IF;
    END IF;
    IF TG_OP <> 'DELETE' AND NEW.deleted_at IS NULL THEN
        INSERT INTO public.labels_lookup VALUES (NEW.code, NEW.label, NEW.display_name)
        ON CONFLICT (code) DO UPDATE SET label = EXCLUDED.label, display_name = EXCLUDED.display_name;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER keep_lookup AFTER INSERT OR UPDATE OR DELETE ON labels FOR EACH ROW EXECUTE FUNCTION keep_lookup();
ALTER TABLE labels ENABLE REPLICA TRIGGER keep_lookup;";

impl Subject {
    /// Name in the table that is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cdc => "cdc",
            Self::CdcDurable => "cdc (on)",
            Self::Native => "native",
            Self::Trigger => "trigger",
        }
    }

    /// Name of target database, slot and subscription in a scenario.
    fn key(self, scenario: usize) -> String {
        let name = match self {
            Self::Cdc => "cdc",
            Self::CdcDurable => "durable",
            Self::Native => "native",
            Self::Trigger => "trigger",
        };
        format!("{name}_{scenario}")
    }

    fn kind(self) -> Kind {
        match self {
            Self::Cdc => Kind::cdc(labels::READ_MODEL),
            Self::CdcDurable => Kind::Cdc {
                read_models: labels::READ_MODEL.to_owned(),
                synchronous_commit: "on",
            },
            Self::Native | Self::Trigger => Kind::Subscription,
        }
    }

    /// What is read at the target.
    pub fn table(self) -> &'static str {
        if self == Self::Native {
            "labels"
        } else {
            "labels_lookup"
        }
    }
}

/// The two servers and how the consumers reach them.
pub struct Servers {
    /// With the master table.
    pub source: Cluster,
    /// With the lookups.
    pub target: Cluster,
    /// Whether connections go over TCP.
    pub tcp: bool,
}

impl Servers {
    /// Connection string of a database at the source.
    pub fn source_url(&self, database: &str) -> String {
        self.url(&self.source, database)
    }

    fn url(&self, cluster: &Cluster, database: &str) -> String {
        if self.tcp {
            cluster.tcp_url(database)
        } else {
            cluster.url(database)
        }
    }
}

/// One consumer in one scenario.
pub struct Consumer {
    /// Which.
    pub subject: Subject,
    /// How it follows.
    pub follower: Follower,
}

impl Consumer {
    /// Makes the target database with its tables; nothing is consumed yet.
    pub async fn new(
        servers: &Servers,
        subject: Subject,
        scenario: usize,
        source: &Client,
    ) -> Result<Self> {
        let key = subject.key(scenario);
        servers.target.create_database(&key)?;
        let target = connect(&servers.target.url(&key)).await?;
        target.batch_execute(labels::LOOKUP).await?;
        let columns = match subject {
            Subject::Native => Some((labels::PLAIN, labels::PLAIN_COLUMNS.to_owned())),
            Subject::Trigger => Some((TRIGGER, format!("{}, deleted_at", labels::PLAIN_COLUMNS))),
            Subject::Cdc | Subject::CdcDurable => None,
        };
        if let Some((tables, columns)) = columns {
            target.batch_execute(tables).await?;
            source
                .batch_execute(&format!(
                    "CREATE PUBLICATION {key} FOR TABLE labels ({columns})"
                ))
                .await?;
        }
        let urls = (
            servers.source_url(&format!("source_{scenario}")),
            servers.url(&servers.target, &key),
        );
        let directory = servers.source.socket_dir().to_owned();
        Ok(Self {
            subject,
            follower: Follower::new(&key, subject.kind(), urls, target, directory),
        })
    }

    /// Whether the target holds what the source says it must.
    pub async fn compare(&self, source: &Client) -> Result<()> {
        let rows = if self.subject == Subject::Native {
            "labels"
        } else {
            "labels WHERE deleted_at IS NULL"
        };
        let found = (&self.follower.target, self.subject.table());
        compare(labels::COMPARED, (source, rows), found).await
    }
}
