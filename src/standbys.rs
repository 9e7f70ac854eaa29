//! Whether commits of the source wait for a walsender of a name: `synchronous_standby_names`, as
//! the server reads it.
//!
//! ```text
//! name, name           FIRST 1 of them
//! n (name, name)       FIRST n of them
//! FIRST n (name, name) the first n that are connected
//! ANY n (name, name)   any n
//! ```
//!
//! A name is a word or in double quotes, `*` is every one, and letters of both cases are one. The
//! view pg_stat_replication hides this from ordinary roles, so it is not known whether other
//! standbys come first: a commit may wait for every walsender that is named.

/// A piece of the setting's text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word as it stands.
    Word(String),
    /// A name in double quotes, without them.
    Quoted(String),
    Open,
    Close,
    Comma,
}

impl Token {
    fn is_count(&self) -> bool {
        matches!(self, Self::Word(word) if word.bytes().all(|byte| byte.is_ascii_digit()))
    }

    fn is_method(&self) -> bool {
        matches!(self, Self::Word(word) if ["first", "any"].iter().any(|method| word.eq_ignore_ascii_case(method)))
    }
}

/// Whether a walsender with this application_name is one that commits may wait for.
pub(crate) fn names(setting: &str, application_name: &str) -> bool {
    let tokens = tokens(setting);
    let list = match tokens.as_slice() {
        [method, count, Token::Open, list @ ..] if method.is_method() && count.is_count() => list,
        [count, Token::Open, list @ ..] if count.is_count() => list,
        list => list,
    };
    list.iter().any(|token| match token {
        Token::Word(name) | Token::Quoted(name) => {
            name == "*" || name.eq_ignore_ascii_case(application_name)
        }
        Token::Open | Token::Close | Token::Comma => false,
    })
}

fn tokens(setting: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = setting.chars().peekable();
    while let Some(first) = rest.next() {
        tokens.push(match first {
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '"' => Token::Quoted(quoted(&mut rest)),
            blank if blank.is_whitespace() => continue,
            _ => {
                let mut word = String::from(first);
                while let Some(next) =
                    rest.next_if(|next| !(next.is_whitespace() || "(),\"".contains(*next)))
                {
                    word.push(next);
                }
                Token::Word(word)
            }
        });
    }
    tokens
}

/// The name up to its closing quote; two quotes stand for one.
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(next) = rest.next() {
        if next == '"' && rest.next_if_eq(&'"').is_none() {
            break;
        }
        name.push(next);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walsender_is_named_as_the_server_reads_the_setting() {
        for (setting, expected) in [
            ("", false),
            ("  ", false),
            ("*", true),
            ("\"*\"", true),
            ("a, *", true),
            ("ANY 1 (*)", true),
            ("any 2(a,*)", true),
            ("FIRST 1 (*)", true),
            ("1 (*)", true),
            ("a", false),
            ("a, b", false),
            ("FIRST 1 (a, b)", false),
            ("\"cdc cdc stream\"", true),
            ("\"CDC cdc Stream\"", true),
            ("a,\"cdc cdc stream\"", true),
            ("ANY 1 (a, \"cdc cdc stream\")", true),
            ("2 (\"cdc cdc stream\", a)", true),
            ("First\t2\n( a ,\"cdc cdc stream\" )", true),
            ("\"cdc cdc streams\"", false),
            ("cdc, stream", false),
            ("\"cdc \"\"cdc\"\" stream\"", false),
            ("\"a, *\"", false),
            ("\"*, a\"", false),
            ("\"ANY 1 (*)\"", false),
        ] {
            assert_eq!(names(setting, "cdc cdc stream"), expected, "{setting}");
        }
    }

    #[test]
    fn names_of_every_kind_are_told_from_counts_and_methods() {
        for (setting, name, expected) in [
            ("cdc", "cdc", true),
            ("CDC", "cdc", true),
            ("cdc_2, a$b", "A$B", true),
            ("ANY 1 (a)", "1", false),
            ("ANY 1 (a, 1)", "1", true),
            ("FIRST 1 (a)", "first", false),
            ("1, 2", "2", true),
            ("\"first\", a", "first", true),
            ("\"a\"\"b\"", "a\"b", true),
            ("\"a\"\"b\"", "ab", false),
            ("\"größe\"", "größe", true),
            ("größe", "größe", true),
            ("\"not closed", "not closed", true),
        ] {
            assert_eq!(names(setting, name), expected, "{setting} {name}");
        }
    }
}
