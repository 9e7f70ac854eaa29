//! What a group does in one round: pieces of DDL, in their order, each with what it means for the
//! read models.

use fastrand::Rng;

use super::tables::{MODELS, Shape, Which};

const NONE: Which = [false; MODELS.len()];

/// Where statements are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a transaction of the source.
    Source,
    /// At the source, outside of a transaction.
    Bare,
    /// At the target; they may be run twice.
    Target,
}

/// Statements that belong together.
#[derive(Debug, Clone)]
pub struct Piece {
    pub place: Place,
    pub sql: Vec<String>,
    /// What the tables are like afterwards.
    pub shape: Shape,
    /// Read models whose rows it changes without a word in the stream: they step to the new state
    /// later.
    pub unstreamed: Which,
    /// Read models that the stream goes on for with rows as if it had not happened, until they are
    /// copied.
    pub blurred: Which,
    /// What the table is called and has afterwards that was the ordinary one before. Without such a
    /// table no change can tell the stream, later in the same transaction, that it was altered.
    pub witness: Option<Shape>,
    /// Wait afterwards until `cdc` has come to rest.
    pub rest: bool,
}

/// Collects the pieces of one round.
#[derive(Debug)]
pub struct Script {
    pub rng: Rng,
    /// What the tables are like after the last piece.
    pub shape: Shape,
    /// Makes names that were never used before.
    pub number: String,
    pub pieces: Vec<Piece>,
}

impl Script {
    pub fn new(rng: Rng, shape: Shape) -> Self {
        Self {
            rng,
            shape,
            number: String::new(),
            pieces: Vec::new(),
        }
    }

    /// Statements of one transaction, after which the tables have this shape. A read model that
    /// cannot be filled from there on, or can be filled again, steps to its new state.
    pub fn to(&mut self, shape: Shape, sql: Vec<String>) -> &mut Piece {
        let (before, after) = (self.shape.readable(), shape.readable());
        let mut unstreamed = NONE;
        for (flag, (before, after)) in unstreamed.iter_mut().zip(before.iter().zip(after)) {
            *flag = *before != after;
        }
        self.shape = shape.clone();
        self.pieces.push(Piece {
            place: Place::Source,
            sql,
            witness: Some(shape.clone()),
            shape,
            unstreamed,
            blurred: NONE,
            rest: false,
        });
        self.pieces.last_mut().unwrap()
    }

    /// Statements that leave the shape as it is.
    pub fn keep(&mut self, sql: Vec<String>) -> &mut Piece {
        self.to(self.shape.clone(), sql)
    }

    pub fn one(&mut self, sql: impl Into<String>) -> &mut Piece {
        self.keep(vec![sql.into()])
    }

    /// Sometimes the state that was just reached is waited for.
    pub fn maybe_rest(&mut self) {
        if self.rng.u32(0..3) == 0
            && let Some(last) = self.pieces.last_mut()
        {
            last.rest = true;
        }
    }

    pub fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }
}

impl Piece {
    /// Rows change without a word in the stream.
    pub fn unstreamed(&mut self, which: Which) -> &mut Self {
        merge(&mut self.unstreamed, which);
        self
    }

    /// The stream goes on for these read models as if nothing had happened.
    pub fn blurred(&mut self, which: Which) -> &mut Self {
        merge(&mut self.blurred, which);
        self
    }

    /// The table that was the ordinary one before is this one now, or gone.
    pub fn witness(&mut self, shape: Option<Shape>) -> &mut Self {
        self.witness = shape;
        self
    }

    pub fn at(&mut self, place: Place) -> &mut Self {
        self.place = place;
        self
    }
}

fn merge(of: &mut Which, more: Which) {
    for (flag, more) in of.iter_mut().zip(more) {
        *flag |= more;
    }
}
