//! The demo's output: lines below 100 columns, in colour only on a terminal that wants it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Width of the rule beside a heading.
const WIDTH: usize = 92;
/// Width of the lookup's table, to the left of the report.
const LEFT: usize = 40;

/// SGR codes (ECMA-48) of what is shown in colour.
#[derive(Clone, Copy)]
enum Style {
    Plain,
    Strong,
    Faint,
    Good,
    Code,
    New,
    Changed,
    Gone,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good | Self::New => "\x1b[32m",
            Self::Code => "\x1b[36m",
            Self::Changed => "\x1b[33m",
            Self::Gone => "\x1b[31m",
        }
    }
}

/// Where the demo writes to.
pub(super) struct Screen {
    out: Box<dyn Write>,
    colour: bool,
}

/// What was shown last, to mark what is different now.
#[derive(Default)]
pub(super) struct Tables {
    lookup: Option<BTreeMap<String, Vec<String>>>,
    report: Option<BTreeMap<String, Vec<String>>>,
}

impl Screen {
    /// Standard output; in colour if it is a terminal, and neither NO_COLOR nor TERM=dumb is set.
    pub(super) fn stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            out: Box::new(io::stdout()),
            colour: io::stdout().is_terminal() && !refused,
        }
    }

    /// A line as it is. A reader that has ended (`cdc demo | head`) is not an error.
    pub(super) fn line(&mut self, text: &str) {
        let _ = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
    }

    /// The first line.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint(Style::Strong, text);
        self.line(&text);
    }

    /// The head of a chapter, after an empty line.
    pub(super) fn heading(&mut self, text: &str) {
        let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 4));
        let text = format!(
            "\n{} {} {}",
            self.paint(Style::Faint, "──"),
            self.paint(Style::Strong, text),
            self.paint(Style::Faint, &rule)
        );
        self.line(&text);
    }

    /// Something that went well.
    pub(super) fn good(&mut self, text: &str) {
        let mark = self.paint(Style::Good, "✓");
        self.line(&format!("  {mark} {text}"));
    }

    /// Something to type, or that was typed.
    pub(super) fn code(&mut self, text: &str) {
        let text = self.paint(Style::Code, text);
        self.line(&format!("    {text}"));
    }

    /// What to look at.
    pub(super) fn remark(&mut self, text: &str) {
        let text = self.paint(Style::Faint, text);
        self.line(&format!("  {text}"));
    }

    /// Lookup and report side by side; `+`, `~` and `-` mark what is new, changed and gone since
    /// the last time.
    pub(super) fn tables(
        &mut self,
        tables: &mut Tables,
        lookup: Vec<Vec<String>>,
        report: Vec<Vec<String>>,
    ) {
        let left = marked(&mut tables.lookup, lookup);
        let right = marked(&mut tables.report, report);
        let head = format!("    {}  {}", pad("labels_lookup", LEFT), "report");
        let head = self.paint(Style::Faint, &head);
        self.line(&head);
        if left.iter().all(|row| row.mark == '-') {
            self.line("    (no rows)");
        }
        for index in 0..left.len().max(right.len()) {
            let mut text = String::new();
            let (row, style) = left
                .get(index)
                .map_or((String::new(), Style::Plain), |row| {
                    (
                        format!("{} {}", row.mark, cells(&row.cells, &[5, 12, 10])),
                        row.style(),
                    )
                });
            text.push_str("  ");
            text.push_str(&self.paint(style, &pad(&row, LEFT + 2)));
            if let Some(row) = right.get(index) {
                let line = format!("{} {}", row.mark, cells(&row.cells, &[8, 24, 11]));
                let _ = write!(text, "{}", self.paint(row.style(), line.trim_end()));
            }
            let text = text.trim_end().to_owned();
            self.line(&text);
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour && !style.code().is_empty() {
            format!("{}{text}\x1b[0m", style.code())
        } else {
            text.to_owned()
        }
    }
}

/// A row with what happened to it.
#[derive(Debug, PartialEq)]
struct Marked {
    mark: char,
    cells: Vec<String>,
}

impl Marked {
    fn style(&self) -> Style {
        match self.mark {
            '+' => Style::New,
            '~' => Style::Changed,
            '-' => Style::Gone,
            _ => Style::Plain,
        }
    }
}

/// Compares with the rows shown last, by their first column, and keeps these for the next time.
fn marked(last: &mut Option<BTreeMap<String, Vec<String>>>, rows: Vec<Vec<String>>) -> Vec<Marked> {
    let now: BTreeMap<String, Vec<String>> = rows
        .into_iter()
        .filter_map(|row| Some((row.first()?.clone(), row)))
        .collect();
    let before = last.replace(now.clone());
    let mut marked: Vec<Marked> = now
        .iter()
        .map(|(key, cells)| {
            let mark = match before.as_ref().map(|before| before.get(key)) {
                None => ' ',
                Some(None) => '+',
                Some(Some(old)) if old == cells => ' ',
                Some(Some(_)) => '~',
            };
            Marked {
                mark,
                cells: cells.clone(),
            }
        })
        .collect();
    let gone = before
        .into_iter()
        .flatten()
        .filter(|(key, _)| !now.contains_key(key));
    marked.extend(gone.map(|(_, cells)| Marked { mark: '-', cells }));
    marked.sort_by(|one, other| one.cells.first().cmp(&other.cells.first()));
    marked
}

fn cells(cells: &[String], widths: &[usize]) -> String {
    cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| pad(cell, *width))
        .collect::<Vec<_>>()
        .join(" ")
}

fn pad(text: &str, width: usize) -> String {
    format!("{text:width$}")
}

/// `0.8 ms`, `12 ms`, `1.2 s`.
pub(super) fn millis(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.1} s")
    } else if seconds >= 0.010 {
        format!("{:.0} ms", seconds * 1_000.0)
    } else {
        format!("{:.1} ms", seconds * 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Vec<String>> {
        text.lines()
            .map(|line| line.split('|').map(str::to_owned).collect())
            .collect()
    }

    #[test]
    fn changes_since_the_last_look_are_marked() {
        let mut last = None;
        let marks = |last: &mut _, text: &str| -> String {
            marked(last, rows(text))
                .iter()
                .map(|row| row.mark)
                .collect()
        };
        assert_eq!(marks(&mut last, "DR|Dr.\nMR|Mr."), "  ");
        assert_eq!(marks(&mut last, "DR|Prof.\nMR|Mr.\nMS|Ms."), "~ +");
        assert_eq!(marks(&mut last, "MR|Mr."), "- -");
        assert_eq!(marks(&mut last, ""), "-");
        assert_eq!(marks(&mut last, "MR|Mr."), "+");
    }

    #[test]
    fn times_have_two_figures() {
        assert_eq!(millis(Duration::from_micros(840)), "0.8 ms");
        assert_eq!(millis(Duration::from_micros(12_400)), "12 ms");
        assert_eq!(millis(Duration::from_millis(1_234)), "1.2 s");
    }
}
