//! A row of the table: a connection string with its environment, and what it ends in.

use std::fmt;

/// What a connection string ends in, in kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session.
    Connected,
    /// The client refuses it, or the server's certificate: a person must correct something.
    Mistake,
    /// Nobody answers at that address, or there is no such address.
    Unreachable,
    /// The server asks for a password, and there is none.
    NoPassword,
    /// The server refuses the session, in its own words.
    Refused,
    /// There is a session, but not one that target_session_attrs asks for.
    Unsuitable,
}

/// What a connection string ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub kind: Kind,
    /// Of a session what it says of itself; else the error.
    pub text: String,
}

impl End {
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }

    pub fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }

    /// Whether both clients came to the same: the same session, or the same kind of error; the
    /// server's words must be the same.
    pub fn same_as(&self, ours: &Self) -> bool {
        self.kind == ours.kind
            && match self.kind {
                Kind::Connected => self.text == ours.text,
                // libpq gives the words of each try.
                Kind::Refused => ours
                    .text
                    .rsplit_once(": ")
                    .is_some_and(|(_, last)| self.says(last)),
                _ => true,
            }
    }

    /// Whether this one is with a server, and the other one is not.
    pub fn goes_further_than(&self, other: &Self) -> bool {
        let far = |end: &Self| match end.kind {
            Kind::Mistake => 0,
            Kind::Unreachable | Kind::NoPassword => 1,
            Kind::Refused | Kind::Unsuitable => 2,
            Kind::Connected => 3,
        };
        far(self) > far(other)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text.trim())
    }
}

/// How `cdc` takes the string, compared with libpq.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Both end in the same, of this kind.
    Alike(Kind),
    /// `cdc` refuses it in these words, where libpq goes on.
    Stricter {
        says: &'static str,
        why: &'static str,
    },
    /// libpq ends in this; `cdc` connects, and differs as it says.
    Stated { theirs: Kind, why: &'static str },
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Alike(_) => "alike",
            Self::Stricter { .. } => "stricter",
            Self::Stated { .. } => "different as stated",
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    pub text: String,
    pub variables: Vec<(String, String)>,
    pub verdict: Verdict,
    /// Part of the target's error, where the target alone refuses it.
    pub target_says: Option<&'static str>,
    /// Major version of the first libpq that takes it so.
    pub since: u32,
    /// Whether it is about certificates.
    pub needs_tls: bool,
}

impl Row {
    fn new(text: &str, verdict: Verdict) -> Self {
        Self {
            text: text.to_owned(),
            variables: Vec::new(),
            verdict,
            target_says: None,
            since: 0,
            needs_tls: false,
        }
    }

    /// With this variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Only with libpq of this version or later.
    pub fn since(mut self, major: u32) -> Self {
        self.since = major;
        self
    }

    /// It is about certificates.
    pub fn of_tls(mut self) -> Self {
        self.needs_tls = true;
        self
    }

    /// The lookups must be writable: the target refuses it in these words (the sides' names are one
    /// here).
    pub fn not_as_target(mut self) -> Self {
        self.target_says = Some("that asks for a standby is not supported for the source");
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)?;
        for (name, value) in &self.variables {
            write!(f, " {name}={value:?}")?;
        }
        match &self.verdict {
            Verdict::Alike(kind) => write!(f, " alike, {kind:?}"),
            Verdict::Stricter { why, .. } => write!(f, " stricter, since {why}"),
            Verdict::Stated { why, .. } => write!(f, " different, since {why}"),
        }
    }
}

/// Both connect, and the sessions are alike.
pub fn connected(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::Connected))
}

/// Both refuse the string.
pub fn mistake(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::Mistake))
}

/// Nobody answers either.
pub fn unreachable(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::Unreachable))
}

/// Neither has a password.
pub fn no_password(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::NoPassword))
}

/// The server refuses both, in the same words.
pub fn refused(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::Refused))
}

/// The server is not of the kind that both look for.
pub fn unsuitable(text: &str) -> Row {
    Row::new(text, Verdict::Alike(Kind::Unsuitable))
}

/// `cdc` refuses it in these words, for this reason.
pub fn stricter(text: &str, says: &'static str, why: &'static str) -> Row {
    Row::new(text, Verdict::Stricter { says, why })
}

/// `cdc` connects, and differs from what libpq ends in, for this reason.
pub fn stated(text: &str, theirs: Kind, why: &'static str) -> Row {
    Row::new(text, Verdict::Stated { theirs, why })
}
