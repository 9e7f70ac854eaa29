//! How the code names a read model: by its place among the configured ones, or by its number in the
//! bookkeeping. Both are small integers, and one in the place of the other would be another read
//! model, so each has a type of its own.

use std::fmt;

/// The place of a read model among the configured ones, from 0.
///
/// The configuration gives it: it is the order of the `[[read_model]]` tables. It is valid as long
/// as the process runs, in every list that has one entry for each configured read model. Nothing
/// stores it: with another configuration it names another read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelIndex(pub usize);

impl ModelIndex {
    /// The entries of a list of all configured read models, each with its index.
    pub fn number<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = (Self, T)> {
        let all = all.into_iter().enumerate();
        all.map(|(place, entry)| (Self(place), entry))
    }

    /// Its entry in a list of all configured read models; `None` if the list has no such place.
    pub fn of<T>(self, all: &[T]) -> Option<&T> {
        all.get(self.0)
    }

    /// The same, to change it.
    pub fn of_mut<T>(self, all: &mut [T]) -> Option<&mut T> {
        all.get_mut(self.0)
    }
}

/// The number of a read model in the bookkeeping: `id` of its table `read_model`.
///
/// The target gives it when the read model is stored for the first time. It is valid as long as the
/// bookkeeping keeps the read model, across restarts and changes of its definition; a read model
/// that is configured no more is forgotten, and its number is not given again. The names of its map
/// and its shadows have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelId(pub i32);

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_entry_or_none() {
        let mut all = ["labels", "units"];
        let found: Vec<_> = ModelIndex::number(all).collect();
        assert_eq!(found, [(ModelIndex(0), "labels"), (ModelIndex(1), "units")]);
        *ModelIndex(1).of_mut(&mut all).unwrap() = "places";
        assert_eq!(ModelIndex(1).of(&all), Some(&"places"));
        assert_eq!(ModelIndex(2).of(&all), None);
        assert_eq!(ModelIndex(2).of_mut(&mut all), None);
    }

    #[test]
    fn an_id_is_written_as_the_bookkeeping_has_it() {
        assert_eq!(format!("map_{}", ModelId(7)), "map_7");
    }
}
