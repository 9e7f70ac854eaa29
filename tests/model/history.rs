//! Histories: random ones from a seed, how they are played, made smaller, and written for psql.

use std::fmt::Write as _;

use cdc::lsn::{Lsn, PgTimestamp};
use cdc::progress::{TransactionId, Verdict};

use crate::reader::{Reader, expected};
use crate::source::{Event, Kind, Mark, Note, Refused, SoftDelete, Stored, Table, Unique, Which};
use crate::statement::{Set, Statement, tables};
use crate::wire::{self, Place};

/// Ids from 1 to this one: few, so that they come again.
const IDS: u8 = 7;
/// Codes below this one.
const CODES: u8 = 5;
/// A code to put a row aside with.
const ASIDE: u8 = 99;

/// A transaction of the source, and what the consumer does once it has read it.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub statements: Vec<Statement>,
    /// Bytes of WAL between its end and the next commit record; 0 is back to back.
    gap: u64,
    then: Then,
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
    events: Vec<Event>,
    table: Table,
}

impl History {
    /// A random history.
    pub fn any(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let kind = Kind::any(&mut random);
        let restarts = random.u8(0..4);
        let mut author = Author {
            table: Table::new(kind),
            number: 0,
            random,
        };
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
                then: Then {
                    apply,
                    pass: apply && random.u8(0..4) == 0,
                    acknowledge: random.u8(0..3) == 0,
                    start: restarts == 3 || (restarts == 2 && random.u8(0..4) == 0),
                    describe: random.u8(0..5) == 0,
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
            sent.push(Sent {
                place: Place {
                    commit_lsn,
                    end_lsn,
                    xid,
                    time: i64::from(xid) * 1000,
                },
                events,
                passed: end_lsn + transaction.gap,
                table: table.clone(),
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
        for (at, transaction) in self.transactions.iter().enumerate() {
            let last = at + 1 == sent.len();
            let mut then = transaction.then;
            then.apply |= last;
            let done = step(&mut reader, self.kind, &sent[..=at], then, &mut described);
            if let Err(why) = done {
                return Ok(Err((at, why)));
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
            } = self.transactions[at].then;
            let flags: [(bool, Clear); 5] = [
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
                let messages = wire::transaction(self.kind, sent.place, &sent.events, &mut described);
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
            let Then {
                apply,
                pass,
                acknowledge,
                start,
                describe,
            } = transaction.then;
            for (did, what) in [
                (apply || number == self.transactions.len(), "the batch ends"),
                (pass, "a later position is stored"),
                (acknowledge, "what is applied is acknowledged"),
                (start, "cdc starts again"),
                (describe, "the tables are described again"),
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
fn step(
    reader: &mut Reader,
    kind: Kind,
    sent: &[Sent],
    then: Then,
    described: &mut bool,
) -> Result<(), String> {
    let Some(now) = sent.last() else { return Ok(()) };
    reader.read(&wire::transaction(kind, now.place, &now.events, described))?;
    if then.apply {
        reader.apply()?;
        compare(reader, &now.table)?;
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
        reader.start();
        *described = false;
        let slot = reader.slot;
        for again in sent.iter().filter(|sent| Lsn(sent.place.commit_lsn) >= slot) {
            reader.read(&wire::transaction(kind, again.place, &again.events, described))?;
        }
        if then.apply {
            reader.pass(reader.checkpoint())?;
            reader.apply()?;
            compare(reader, &now.table)?;
        }
    }
    Ok(())
}

/// Nothing, or what each lookup shows and should not, and the reverse.
fn compare(reader: &Reader, table: &Table) -> Result<(), String> {
    let expected = expected(table);
    let mut text = String::new();
    for (number, (found, expected)) in reader.lookups().into_iter().zip(&expected).enumerate() {
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
        .map(|sent| (id(sent.place), !sent.events.is_empty()))
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

/// Writes random transactions that the server accepts.
struct Author {
    table: Table,
    /// Counts up, so that every value is another one.
    number: u32,
    random: fastrand::Rng,
}

impl Author {
    /// A transaction; `None` if the server would refuse its commit.
    fn transaction(&mut self) -> Option<Vec<Statement>> {
        let before = self.table.clone();
        let mut statements = Vec::new();
        if self.random.u8(0..15) > 0 {
            for _ in 0..self.random.usize(1..=5) {
                self.some(&mut statements, true);
            }
        }
        let mut again = before.clone();
        if again.run(&statements).is_err() {
            self.table = before;
            return None;
        }
        Some(statements)
    }

    /// Adds statements that belong together, as far as the server accepts them.
    fn some(&mut self, statements: &mut Vec<Statement>, outermost: bool) {
        if outermost && self.random.u8(0..10) == 0 {
            let before = self.table.clone();
            let mut inner = Vec::new();
            for _ in 0..self.random.usize(1..4) {
                self.some(&mut inner, false);
            }
            let kept = self.random.bool();
            if !kept {
                self.table = before;
            }
            statements.push(Statement::Savepoint {
                statements: inner,
                kept,
            });
            return;
        }
        for statement in self.idea() {
            let mut trial = self.table.clone();
            if trial.statement(&statement, &mut Vec::new()).is_ok() {
                self.table = trial;
                statements.push(statement);
            }
        }
    }

    fn idea(&mut self) -> Vec<Statement> {
        let ids: Vec<u8> = self.table.rows.keys().copied().collect();
        let Some(id) = self.random.choice(ids.iter().copied()) else {
            return vec![self.insert()];
        };
        let update = |id, set: &[Set]| Statement::Update {
            id,
            set: set.to_vec(),
        };
        match self.random.u8(0..100) {
            0..=21 => vec![self.insert()],
            22..=33 => vec![update(id, &[Set::Label(self.next())])],
            34..=39 => vec![update(id, &[Set::Note(self.note())])],
            40..=47 => vec![update(id, &[Set::Code(self.code())])],
            48..=58 => vec![update(id, &[Set::Mark(self.mark())])],
            59..=62 => {
                let set = [
                    Set::Code(self.code()),
                    Set::Mark(self.mark()),
                    Set::Label(self.next()),
                ];
                vec![update(id, &set[..self.random.usize(1..=3)])]
            }
            63..=66 => vec![update(id, &[Set::Id(self.random.u8(1..=IDS))])],
            67..=68 => vec![update(
                id,
                &[Set::Id(self.random.u8(1..=IDS)), Set::Code(self.code())],
            )],
            69..=70 => vec![update(id, &[])],
            71..=78 => self.rotate(ids),
            79..=86 => vec![Statement::Delete(id)],
            87..=89 => vec![Statement::Delete(id), self.insert_as(id)],
            90..=92 => {
                let new = self.insert();
                let Statement::Insert(row) = new else {
                    return vec![new];
                };
                vec![new, Statement::Delete(row.id), self.insert_as(row.id)]
            }
            93 => vec![Statement::Relabel(self.next())],
            94 if self.random.u8(0..3) == 0 => vec![Statement::Truncate],
            _ => vec![Statement::Elsewhere],
        }
    }

    /// Two or three rows pass their codes on: straight, or by way of a code that nobody has.
    fn rotate(&mut self, mut ids: Vec<u8>) -> Vec<Statement> {
        self.random.shuffle(&mut ids);
        ids.truncate(self.random.usize(2..4));
        let codes: Vec<_> = ids.iter().map(|id| self.table.rows[id].code).collect();
        let set = |at: usize, code| Statement::Update {
            id: ids[at],
            set: vec![Set::Code(code)],
        };
        let count = ids.len();
        let heirs = (0..count).map(|at| set(at, codes[(at + 1) % count]));
        let at_once = self.table.kind.unique == Unique::AtOnce || self.table.kind.code_is_identity();
        if at_once || self.random.u8(0..4) == 0 {
            // The first one steps aside, and each takes the code that was just given up.
            let aside = std::iter::once(set(0, Some(ASIDE)));
            return aside.chain(heirs.rev()).collect();
        }
        heirs.collect()
    }

    fn insert(&mut self) -> Statement {
        let id = self.random.u8(1..=IDS);
        self.insert_as(id)
    }

    fn insert_as(&mut self, id: u8) -> Statement {
        Statement::Insert(Stored {
            id,
            code: self.code(),
            label: self.next(),
            note: self.note(),
            mark: if self.random.u8(0..5) == 0 {
                self.mark()
            } else {
                Mark::Null
            },
            out: Which::default(),
        })
    }

    fn next(&mut self) -> u32 {
        self.number += 1;
        self.number
    }

    fn code(&mut self) -> Option<u8> {
        (self.random.u8(0..12) > 0).then(|| self.random.u8(0..CODES))
    }

    fn note(&mut self) -> Note {
        Note {
            number: self.next(),
            large: self.random.bool(),
        }
    }

    fn mark(&mut self) -> Mark {
        match self.table.kind.soft_delete {
            SoftDelete::Absent => Mark::Null,
            SoftDelete::Timestamp => [Mark::Null, Mark::Dead][self.random.usize(0..2)],
            SoftDelete::Boolean => [Mark::Null, Mark::False, Mark::Dead, Mark::Dead][self.random.usize(0..4)],
        }
    }
}
