//! Histories: random ones from a seed, how they are played, made smaller, and written for psql.

use std::fmt::Write as _;

use cdc::lsn::{Lsn, PgTimestamp};
use cdc::progress::{TransactionId, Verdict};

use crate::author::Author;
use crate::copy::Copy;
use crate::reader::{Reader, expected};
use crate::source::{Kind, Note, Refused, Stored, Table};
use crate::statement::{Statement, tables};
use crate::wire::{self, Cuts, Place};
use crate::writer::Target;

/// A transaction of the source, and what the consumer does once it has read it.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub statements: Vec<Statement>,
    /// Bytes of WAL between its end and the next commit record; 0 is back to back.
    gap: u64,
    read: Read,
    then: Then,
}

/// How the transaction is read.
#[derive(Debug, Clone, Copy, Default)]
struct Read {
    /// It is large: what was read so far is taken as a chunk.
    cuts: Cuts,
    /// After so many messages the consumer starts again, once.
    breaks_off: Option<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Then {
    /// The batch ends here.
    apply: bool,
    /// The position before the next commit record is stored.
    pass: bool,
    /// What is applied is acknowledged.
    acknowledge: bool,
    /// The consumer starts again.
    start: bool,
    /// The tables are described again before the next change.
    describe: bool,
    /// An exact copy begins at this point.
    copy: bool,
}

/// Leaves one of these out.
type Clear = fn(&mut Then);

/// What happened to a table, and to the consumer.
#[derive(Debug, Clone)]
pub struct History {
    pub kind: Kind,
    pub transactions: Vec<Transaction>,
}

/// A transaction as it was sent.
struct Sent {
    place: Place,
    /// Position before the next commit record.
    passed: u64,
    messages: wire::Messages,
    has_changes: bool,
    read: Read,
    table: Table,
}

impl History {
    /// A random history.
    pub fn any(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = Kind::any(&mut random);
        let restarts = random.u8(0..4);
        let mut author = Author::new(kind, random);
        let mut transactions = Vec::new();
        for _ in 0..author.random.usize(2..14) {
            let Some(statements) = author.transaction() else {
                continue;
            };
            let random = &mut author.random;
            let apply = random.u8(0..5) < 2;
            transactions.push(Transaction {
                statements,
                gap: if random.bool() { 0 } else { random.u64(1..20) },
                read: Read {
                    cuts: match random.u8(0..6) {
                        0 => Cuts(u16::MAX),
                        1 => Cuts(random.u16(..) & random.u16(..)),
                        _ => Cuts::default(),
                    },
                    breaks_off: (restarts >= 2 && random.u8(0..3) == 0).then(|| random.u8(1..12)),
                },
                then: Then {
                    apply,
                    pass: apply && random.u8(0..4) == 0,
                    acknowledge: random.u8(0..3) == 0,
                    start: restarts == 3 || (restarts == 2 && random.u8(0..4) == 0),
                    describe: random.u8(0..5) == 0,
                    copy: random.u8(0..12) == 0,
                },
            });
        }
        Self { kind, transactions }
    }

    /// Runs the statements.
    fn sent(&self) -> Result<Vec<Sent>, Refused> {
        let mut table = Table::new(self.kind);
        let mut commit_lsn = 1000;
        let mut sent = Vec::new();
        for (transaction, xid) in self.transactions.iter().zip(700..) {
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
                read: transaction.read,
                passed: end_lsn + transaction.gap,
                table,
            });
            commit_lsn = end_lsn + transaction.gap;
        }
        Ok(sent)
    }

    /// Plays the history, and tells what went wrong: after which transaction, and how.
    ///
    /// `Err(Refused)` if it is none that a server would let happen.
    pub fn play(&self) -> Result<Result<(), (usize, String)>, Refused> {
        let sent = self.sent()?;
        let mut reader = Reader::new(self.kind);
        let mut described = false;
        let mut copies = Vec::new();
        for (at, transaction) in self.transactions.iter().enumerate() {
            let last = at + 1 == sent.len();
            let mut then = transaction.then;
            then.apply |= last;
            let done = step(&mut reader, &sent[..=at], then, &mut described);
            let done = done.and_then(|()| follow(&mut copies, &sent[at], then));
            if let Err(why) = done {
                return Ok(Err((at, why)));
            }
            if then.copy {
                copies.push(Copy::new(&sent[at].table, &reader));
            }
        }
        Ok(Ok(()))
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
            let Then {
                apply,
                pass,
                acknowledge,
                start,
                describe,
                copy,
            } = self.transactions[at].then;
            let flags: [(bool, Clear); 6] = [
                (copy, |then| then.copy = false),
                (start, |then| then.start = false),
                (pass, |then| then.pass = false),
                (acknowledge, |then| then.acknowledge = false),
                (describe, |then| then.describe = false),
                (apply, |then| then.apply = false),
            ];
            for (set, clear) in flags {
                if set {
                    with(&|transactions| clear(&mut transactions[at].then));
                }
            }
            if self.transactions[at].gap > 0 {
                with(&|transactions| transactions[at].gap = 0);
            }
            let Read { cuts, breaks_off } = self.transactions[at].read;
            if breaks_off.is_some() {
                with(&|transactions| transactions[at].read.breaks_off = None);
            }
            for bit in (0..16).map(|bit| 1 << bit).filter(|bit| cuts.0 & bit != 0) {
                with(&|transactions| transactions[at].read.cuts.0 &= !bit);
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
                let messages = sent.messages.tell(&mut described);
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

    /// The history for psql, with what the consumer did as comments.
    pub fn sql(&self) -> String {
        let mut sql = tables(self.kind);
        for (transaction, number) in self.transactions.iter().zip(1..) {
            let _ = write!(
                sql,
                "\n-- transaction {number}\n{}",
                self.transaction_sql(transaction)
            );
            let Read { cuts, breaks_off } = transaction.read;
            if let Some(messages) = breaks_off {
                let _ = writeln!(sql, "-- cdc starts again after {messages} of its messages");
            }
            if cuts != Cuts::default() {
                let after: Vec<_> = (0..16)
                    .filter(|message| cuts.after(*message))
                    .map(|at| at + 1)
                    .collect();
                let _ = writeln!(sql, "-- it comes in chunks, cut after messages {after:?}");
            }
            let Then {
                apply,
                pass,
                acknowledge,
                start,
                describe,
                copy,
            } = transaction.then;
            for (did, what) in [
                (apply || number == self.transactions.len(), "the batch ends"),
                (pass, "a later position is stored"),
                (acknowledge, "what is applied is acknowledged"),
                (start, "cdc starts again"),
                (describe, "the tables are described again"),
                (copy, "an exact copy begins"),
            ] {
                if did {
                    let _ = writeln!(sql, "-- {what}");
                }
            }
        }
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

/// The consumer reads the last of these transactions, and does what it does then.
fn step(reader: &mut Reader, sent: &[Sent], then: Then, described: &mut bool) -> Result<(), String> {
    let Some((now, before)) = sent.split_last() else {
        return Ok(());
    };
    if let Some(messages) = now.read.breaks_off {
        let all = now.messages.tell(described);
        let beginning = &all[..usize::from(messages).min(all.len() - 1)];
        reader.read_beginning(beginning, now.read.cuts)?;
        start_again(reader, before, described)?;
    }
    read(reader, now, described)?;
    if then.apply {
        reader.apply()?;
        compare(reader.targets(), &now.table)?;
        if then.pass {
            reader.pass(Lsn(now.passed))?;
        }
    }
    if then.acknowledge {
        reader.acknowledge()?;
    }
    if then.describe {
        *described = false;
    }
    if then.start {
        rewritten_histories_are_noticed(reader, sent)?;
        start_again(reader, sent, described)?;
        if then.apply {
            reader.pass(reader.checkpoint())?;
            reader.apply()?;
            compare(reader.targets(), &now.table)?;
        }
    }
    Ok(())
}

fn read(reader: &mut Reader, sent: &Sent, described: &mut bool) -> Result<(), String> {
    if reader.read(&sent.messages.tell(described), sent.read.cuts)? {
        compare(reader.targets(), &sent.table)?;
    }
    Ok(())
}

/// All that was sent comes again from the slot's position on.
fn start_again(reader: &mut Reader, sent: &[Sent], described: &mut bool) -> Result<(), String> {
    reader.start();
    *described = false;
    let slot = reader.slot;
    for again in sent.iter().filter(|sent| Lsn(sent.place.commit_lsn) >= slot) {
        read(reader, again, described)?;
    }
    Ok(())
}

/// The copies that have begun read the transaction; where a batch ends they are written, and merged to see what comes of it.
fn follow(copies: &mut [Copy], sent: &Sent, then: Then) -> Result<(), String> {
    for copy in copies {
        let messages = sent.messages.tell(&mut copy.described);
        copy.read(&messages, sent.read.cuts)?;
        if then.apply {
            copy.write()?;
            compare(&copy.merged()?, &sent.table)
                .map_err(|why| format!("after the merge of a copy:\n{why}"))?;
        }
    }
    Ok(())
}

/// Nothing, or what each lookup shows and should not, and the reverse.
fn compare(targets: &[Target; 2], table: &Table) -> Result<(), String> {
    let expected = expected(table);
    let mut text = String::new();
    for (number, (target, expected)) in targets.iter().zip(&expected).enumerate() {
        let found = &target.lookup;
        let name = ["by code", "by id"][number];
        for row in found
            .values()
            .filter(|row| !expected.values().any(|other| other == *row))
        {
            let _ = writeln!(text, "  the lookup {name} shows:       {row:?}");
        }
        for row in expected
            .values()
            .filter(|row| !found.values().any(|other| other == *row))
        {
            let _ = writeln!(text, "  the lookup {name} should show: {row:?}");
        }
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

/// What comes again is judged as rewritten if the last applied transaction is another one, or missing, or not the last.
fn rewritten_histories_are_noticed(reader: &Reader, sent: &[Sent]) -> Result<(), String> {
    let checkpoint = reader.checkpoint();
    let again: Vec<(TransactionId, bool)> = sent
        .iter()
        .map(|sent| (id(sent.place), sent.has_changes))
        .filter(|(id, _)| (reader.slot..checkpoint).contains(&id.commit_lsn))
        .collect();
    let judged = |history: &[(TransactionId, bool)]| {
        let mut judge = reader.judge();
        let rewritten = history
            .iter()
            .any(|(id, has_changes)| judge.judge(*id, *has_changes) == Verdict::Rewritten);
        rewritten || judge.pass(checkpoint) == Verdict::Rewritten
    };
    let mut histories = Vec::new();
    if let Some(last) = reader.last_to_come() {
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
    if (reader.slot..checkpoint).contains(&late)
        && reader.last_to_come().is_none_or(|last| last.commit_lsn < late)
    {
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
