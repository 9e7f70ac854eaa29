//! The words after `cargo bench --bench NAME --`.

use anyhow::{Context, Result, bail};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// How large everything is, as a multiple of the full size.
    pub scale: f64,
    names: Vec<String>,
    flags: Vec<String>,
    numbers: Vec<(String, f64)>,
}

impl Arguments {
    /// Reads the command line. Scenarios are named by `--scenario`, or `--case`.
    pub fn parse(scale: f64, scenarios: &[&str], flags: &[&str], numbers: &[&str]) -> Result<Self> {
        let mut arguments = Self {
            scale,
            names: Vec::new(),
            flags: Vec::new(),
            numbers: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value"))
            };
            match word.as_str() {
                "--scale" => arguments.scale = value()?.parse()?,
                "--scenario" | "--case" => arguments.names.push(value()?),
                // Cargo's own.
                "--bench" => {}
                flag if flags.contains(&flag) => arguments.flags.push(word),
                number if numbers.contains(&number) => {
                    let value = value()?.parse()?;
                    arguments.numbers.push((word, value));
                }
                _ => bail!("cannot understand {word}"),
            }
        }
        let unknown = arguments
            .names
            .iter()
            .find(|name| !scenarios.contains(&name.as_str()));
        if let Some(name) = unknown {
            bail!(
                "there is no scenario {name}; there are {}",
                scenarios.join(", ")
            );
        }
        Ok(arguments)
    }

    /// Whether this scenario runs: all of them if none is named.
    pub fn wants(&self, scenario: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == scenario)
    }

    /// Whether the flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.flags.iter().any(|flag| flag == name)
    }

    /// The value of an option.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers
            .iter()
            .rev()
            .find_map(|(of, value)| (of == name).then_some(*value))
    }

    /// So many at full size are so many here; at least `least`, and a multiple of it.
    pub fn scaled(&self, full: u64, least: u64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scaled = (full as f64 * self.scale).round() as u64;
        (scaled / least).max(1) * least
    }
}
