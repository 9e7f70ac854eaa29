//! The leaves of partitioned tables whose changes the stream has brought.
//!
//! If a leaf's changes come under its root's name, PostgreSQL sends the root's Relation message and
//! the leaf's right after it, before the leaf's first change (`maybe_send_schema`, pgoutput.c). So
//! the stream names leaves that the catalogs may no longer show when the watch looks: attached,
//! changed and detached again.

use crate::protocol::pgoutput::Message;
use crate::sql::TableName;

/// A root and the OID of one of its leaves.
pub(crate) type Leaf = (TableName, u32);

/// Pairs the Relation message of a root with that of a leaf.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// The table of the Relation message right before the next message.
    last: Option<(TableName, u32)>,
    brought: Vec<Leaf>,
}

impl Leaves {
    /// Looks at the next message of the stream.
    pub(super) fn see(&mut self, message: &Message<'_>) {
        match message {
            Message::Relation(described) => {
                match self.last.take() {
                    // Two tables of one TRUNCATE look like this too, which costs a resync and no
                    // more.
                    Some((root, of)) if of != described.oid => {
                        self.brought.push((root, described.oid))
                    }
                    _ => {
                        self.last = Some((
                            TableName::new(described.schema, described.name),
                            described.oid,
                        ))
                    }
                }
            }
            // The types of the leaf's columns come between.
            Message::Type { .. } => {}
            _ => self.last = None,
        }
    }

    /// The leaves of the transaction that ends.
    pub(super) fn take(&mut self) -> Vec<Leaf> {
        std::mem::take(&mut self.brought)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pgoutput::decode;

    fn relation(oid: u32, name: &str) -> Vec<u8> {
        let head = [
            b"R".as_slice(),
            &oid.to_be_bytes(),
            b"public\0",
            name.as_bytes(),
        ];
        [&head.concat(), b"\0d\0\0".as_slice()].concat()
    }

    /// Names of roots and OIDs of leaves that these messages bring; `None` is another message.
    fn brought(messages: &[Option<(u32, &str)>]) -> Vec<(String, u32)> {
        let mut leaves = Leaves::default();
        for message in messages {
            let bytes = match message {
                Some((oid, name)) => relation(*oid, name),
                None => b"T\0\0\0\0\0".to_vec(),
            };
            leaves.see(&decode(&bytes).unwrap());
        }
        let taken = leaves.take();
        assert_eq!(leaves.take(), []);
        taken
            .into_iter()
            .map(|(root, leaf)| (root.name, leaf))
            .collect()
    }

    #[test]
    fn a_leaf_comes_right_after_its_root() {
        let (root, one, two) = (Some((1, "root")), Some((2, "one")), Some((3, "two")));
        assert_eq!(brought(&[root, one, None]), [("root".to_owned(), 2)]);
        assert_eq!(
            brought(&[root, one, None, root, two]),
            [("root".to_owned(), 2), ("root".to_owned(), 3)]
        );
        // Right after each other, as of one TRUNCATE of three roots.
        assert_eq!(brought(&[root, one, root, two]).len(), 2);
        // Tables of their own, and a root that is described again.
        assert_eq!(brought(&[one, None, two, None]), []);
        assert_eq!(brought(&[root, None, one]), []);
        assert_eq!(brought(&[root, root, one]), [("root".to_owned(), 2)]);
    }
}
