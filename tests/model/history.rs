//! Histories: random ones from a seed, how they are played, made smaller, and written for psql.

use std::fmt::Write as _;

use cdc::lsn::{Lsn, PgTimestamp};
use cdc::progress::{Replay, TransactionId, Verdict};

use crate::author::Author;
use crate::lookups::Lookup;
use crate::player::Player;
use crate::source::{Kind, Note, Refused, Stored, Table};
use crate::statement::{Statement, tables};
use crate::wire::{self, Place};
use crate::writer::Target;

/// A transaction of the source.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub statements: Vec<Statement>,
    /// Bytes of WAL between its end and the next commit record; 0 is back to back.
    gap: u64,
}

/// How a history is played.
#[derive(Debug, Clone, Copy)]
pub struct Drive {
    /// Draws the order of what happens.
    pub seed: u64,
    /// Bytes of one transaction above which it goes on in chunks.
    pub chunk_bytes: usize,
    /// Whether the target's commits are durable at once.
    pub synchronous: bool,
    /// Whether the process is killed.
    pub restarts: bool,
    /// Whether the target crashes.
    pub crashes: bool,
    /// Whether copies are made.
    pub copies: bool,
    /// Whether the tables are described again.
    pub describes: bool,
    /// Whether commits of the source wait for what is acknowledged.
    pub standby: bool,
    /// Whether the source shuts down at the end.
    pub shuts_down: bool,
    /// The transaction whose rows one lookup does not take.
    pub poison: Option<usize>,
    /// Transactions in which a column of the table has another name.
    pub altered: Option<(usize, usize)>,
}

impl Drive {
    fn any(random: &mut fastrand::Rng, transactions: usize) -> Self {
        let often = |random: &mut fastrand::Rng| random.u8(0..2) == 0;
        let seldom = |random: &mut fastrand::Rng| random.u8(0..4) == 0;
        Self {
            seed: random.u64(..),
            chunk_bytes: [1, 60, 200, usize::MAX][random.usize(0..4)],
            synchronous: often(random),
            restarts: often(random),
            crashes: seldom(random),
            copies: often(random),
            describes: often(random),
            standby: seldom(random),
            shuts_down: often(random),
            poison: seldom(random).then(|| random.usize(0..transactions.max(1))),
            altered: seldom(random).then(|| {
                let from = random.usize(0..transactions.max(1));
                (from, from + random.usize(1..4))
            }),
        }
    }
}

/// What happened to a table, and to the consumer.
#[derive(Debug, Clone)]
pub struct History {
    pub kind: Kind,
    pub transactions: Vec<Transaction>,
    pub drive: Drive,
}

/// A transaction as it is sent.
pub struct Sent {
    pub place: Place,
    /// Position before the next commit record.
    pub passed: u64,
    pub messages: wire::Messages,
    pub has_changes: bool,
    /// Whether a column of the table has another name.
    pub is_altered: bool,
    /// The table after it.
    pub table: Table,
}

impl History {
    /// A random history.
    pub fn any(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = Kind::any(&mut random);
        let mut author = Author::new(kind, random);
        let mut transactions = Vec::new();
        for _ in 0..author.random.usize(2..14) {
            if let Some(statements) = author.transaction() {
                let random = &mut author.random;
                let gap = if random.bool() { 0 } else { random.u64(1..20) };
                transactions.push(Transaction { statements, gap });
            }
        }
        let drive = Drive::any(&mut author.random, transactions.len());
        Self {
            kind,
            transactions,
            drive,
        }
    }

    /// Runs the statements.
    fn sent(&self) -> Result<Vec<Sent>, Refused> {
        let mut table = Table::new(self.kind);
        let mut commit_lsn = 1000;
        let mut sent = Vec::new();
        let altered = self.drive.altered.unwrap_or_default();
        for (at, (transaction, xid)) in self.transactions.iter().zip(700..).enumerate() {
            let events = table.run(&transaction.statements)?;
            let end_lsn = commit_lsn + 48;
            let place = Place {
                commit_lsn,
                end_lsn,
                xid,
                time: i64::from(xid) * 1000,
            };
            sent.push(Sent {
                place,
                has_changes: !events.is_empty(),
                messages: wire::Messages::new(self.kind, place, &events),
                is_altered: (altered.0..altered.1).contains(&at),
                passed: end_lsn + transaction.gap,
                table,
            });
            commit_lsn = end_lsn + transaction.gap;
        }
        Ok(sent)
    }

    /// Plays the history; tells what went wrong, and what was done before.
    ///
    /// `Err(Refused)` if it is none that a server would let happen.
    pub fn play(&self) -> Result<Result<(), (String, Vec<String>)>, Refused> {
        let sent = self.sent()?;
        let mut player = Player::new(self.kind, &sent, self.drive);
        Ok(player.play().map_err(|why| (why, player.trace)))
    }

    /// The smallest history that still goes wrong, as far as leaving things out leads.
    pub fn shrink(mut self) -> Self {
        let fails = |history: &Self| matches!(history.play(), Ok(Err(_)));
        loop {
            let smaller = self.smaller().into_iter().find(fails);
            match smaller {
                Some(smaller) => self = smaller,
                None => return self,
            }
        }
    }

    /// Histories with one thing less, whole transactions first.
    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut with = |change: &dyn Fn(&mut Vec<Transaction>)| {
            let mut smaller = self.clone();
            change(&mut smaller.transactions);
            all.push(smaller);
        };
        let count = self.transactions.len();
        for at in 1..count {
            with(&|transactions| transactions.truncate(at));
        }
        for at in 0..count {
            with(&|transactions| drop(transactions.remove(at)));
        }
        for at in 0..count {
            for statements in less(&self.transactions[at].statements) {
                with(&|transactions| transactions[at].statements.clone_from(&statements));
            }
        }
        for at in 0..count {
            if self.transactions[at].gap > 0 {
                with(&|transactions| transactions[at].gap = 0);
            }
        }
        let drives: [fn(&mut Drive); 9] = [
            |drive| drive.altered = None,
            |drive| drive.poison = None,
            |drive| drive.copies = false,
            |drive| drive.crashes = false,
            |drive| drive.restarts = false,
            |drive| drive.standby = false,
            |drive| drive.describes = false,
            |drive| drive.synchronous = true,
            |drive| drive.chunk_bytes = usize::MAX,
        ];
        for change in drives {
            let mut smaller = self.clone();
            change(&mut smaller.drive);
            if format!("{:?}", smaller.drive) != format!("{:?}", self.drive) {
                all.push(smaller);
            }
        }
        all
    }

    /// The statements that make the tables.
    pub fn tables(&self) -> String {
        tables(self.kind)
    }

    /// Each transaction as SQL, and the messages that tell of it.
    pub fn told(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        let sent = self.sent().expect("a server accepts it");
        let mut described = false;
        self.transactions
            .iter()
            .zip(&sent)
            .map(|(transaction, sent)| {
                let messages = sent.messages.tell(&mut described, false);
                let messages = messages.into_iter().map(<[u8]>::to_vec).collect();
                (self.transaction_sql(transaction), messages)
            })
            .collect()
    }

    fn transaction_sql(&self, transaction: &Transaction) -> String {
        let mut sql = "BEGIN;\n".to_owned();
        for statement in &transaction.statements {
            statement.write_sql(self.kind, &mut sql);
        }
        sql + "COMMIT;\n"
    }

    /// The history for psql, and how it is played.
    pub fn sql(&self) -> String {
        let mut sql = tables(self.kind);
        for (transaction, number) in self.transactions.iter().zip(1..) {
            let _ = write!(
                sql,
                "\n-- transaction {number}\n{}",
                self.transaction_sql(transaction)
            );
        }
        let _ = writeln!(sql, "\n-- {:?}", self.drive);
        sql
    }
}

/// Statements with one thing less.
fn less(statements: &[Statement]) -> Vec<Vec<Statement>> {
    let mut all = Vec::new();
    for (at, statement) in statements.iter().enumerate() {
        let mut with = |replacement: &[Statement]| {
            let mut fewer = statements.to_vec();
            fewer.splice(at..=at, replacement.iter().cloned());
            all.push(fewer);
        };
        with(&[]);
        match statement {
            Statement::Savepoint { statements, kept } => {
                if *kept {
                    with(statements);
                }
                for statements in less(statements) {
                    with(&[Statement::Savepoint {
                        statements,
                        kept: *kept,
                    }]);
                }
            }
            Statement::Update { id, set } => {
                for column in 0..set.len() {
                    let mut set = set.clone();
                    set.remove(column);
                    with(&[Statement::Update { id: *id, set }]);
                }
            }
            Statement::Insert(row) if row.note.large => {
                let note = Note {
                    large: false,
                    ..row.note
                };
                with(&[Statement::Insert(Stored { note, ..*row })]);
            }
            _ => {}
        }
    }
    all
}

/// Nothing, or what the lookup shows and should not, and the reverse.
pub fn compare_one(target: &Target, expected: &Lookup) -> Result<(), String> {
    let mut text = String::new();
    let found = &target.lookup;
    for row in found
        .values()
        .filter(|row| !expected.values().any(|other| other == *row))
    {
        let _ = writeln!(text, "  the lookup shows:       {row:?}");
    }
    for row in expected
        .values()
        .filter(|row| !found.values().any(|other| other == *row))
    {
        let _ = writeln!(text, "  the lookup should show: {row:?}");
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// What comes again is judged as rewritten if the last applied transaction is another one, or
/// missing, or not the last.
pub fn rewritten_histories_are_noticed(
    judge: &Replay,
    last: Option<TransactionId>,
    (slot, checkpoint): (Lsn, Lsn),
    sent: &[Sent],
) -> Result<(), String> {
    let again: Vec<(TransactionId, bool)> = sent
        .iter()
        .map(|sent| (id(sent.place), sent.has_changes))
        .filter(|(id, _)| (slot..checkpoint).contains(&id.commit_lsn))
        .collect();
    let judged = |history: &[(TransactionId, bool)]| {
        let mut judge = judge.clone();
        let rewritten = history
            .iter()
            .any(|(id, has_changes)| judge.judge(*id, *has_changes) == Verdict::Rewritten);
        rewritten || judge.pass(checkpoint) == Verdict::Rewritten
    };
    let mut histories = Vec::new();
    if let Some(last) = last {
        let others = again.iter().copied().filter(|(id, _)| *id != last);
        histories.push(("without the last one", others.clone().collect::<Vec<_>>()));
        let changed = [
            TransactionId {
                xid: last.xid + 1,
                ..last
            },
            TransactionId {
                commit_time: PgTimestamp(last.commit_time.0 + 1),
                ..last
            },
        ];
        for changed in changed {
            let mut history: Vec<_> = others.clone().collect();
            history.push((changed, true));
            history.sort_by_key(|(id, _)| id.commit_lsn);
            histories.push(("with another last one", history));
        }
    }
    let late = Lsn(checkpoint.0.saturating_sub(1));
    if (slot..checkpoint).contains(&late) && last.is_none_or(|last| last.commit_lsn < late) {
        let more = TransactionId {
            commit_lsn: late,
            xid: 1,
            commit_time: PgTimestamp(1),
        };
        let mut history = again.clone();
        history.push((more, true));
        histories.push(("with one more", history));
    }
    if judged(&again) {
        return Err("the history that was applied is taken for another one".to_owned());
    }
    match histories.iter().find(|(_, history)| !judged(history)) {
        Some((what, _)) => Err(format!("a history {what} is not taken for another one")),
        None => Ok(()),
    }
}

fn id(place: Place) -> TransactionId {
    TransactionId {
        commit_lsn: Lsn(place.commit_lsn),
        xid: place.xid,
        commit_time: PgTimestamp(place.time),
    }
}
