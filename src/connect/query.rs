//! A statement with its arguments, and what comes back.
//!
//! The types of the arguments are the ones of their Rust values, so a statement takes one round
//! trip: without them the driver asks the server first. A statement that is sent again and again is
//! kept prepared ([`Query::kept`]).

use std::borrow::Cow;

use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::connection::Connection;

/// A value that can be an argument.
pub(crate) trait Argument: ToSql + Sync + Send {
    /// The type that the server takes it for.
    const TYPE: Type;
}

/// A value that can be in an array that is an argument.
pub(crate) trait Element: ToSql + Sync + Send {
    /// The type of the array.
    const ARRAY: Type;
}

macro_rules! arguments {
    ($($rust:ty => $sql:ident, $array:ident;)*) => {$(
        impl Argument for $rust {
            const TYPE: Type = Type::$sql;
        }

        impl Element for $rust {
            const ARRAY: Type = Type::$array;
        }
    )*};
}

arguments! {
    bool => BOOL, BOOL_ARRAY;
    i32 => INT4, INT4_ARRAY;
    i64 => INT8, INT8_ARRAY;
    f64 => FLOAT8, FLOAT8_ARRAY;
    u32 => OID, OID_ARRAY;
    String => TEXT, TEXT_ARRAY;
    &str => TEXT, TEXT_ARRAY;
}

impl<T: Argument> Argument for Option<T> {
    const TYPE: Type = T::TYPE;
}

impl<T: Element> Element for Option<T> {
    const ARRAY: Type = T::ARRAY;
}

impl<T: Element> Argument for Vec<T> {
    const TYPE: Type = T::ARRAY;
}

impl<T: Element> Argument for &[T] {
    const TYPE: Type = T::ARRAY;
}

impl Argument for &String {
    const TYPE: Type = Type::TEXT;
}

/// What a row is read as.
pub(crate) trait FromRow: Sized {
    /// The row's values, by their places.
    fn from_row(row: &Row) -> Result<Self, Error>;
}

macro_rules! tuples {
    ($($($name:ident $at:tt),*;)*) => {$(
        impl<$($name: for<'r> FromSql<'r>),*> FromRow for ($($name,)*) {
            fn from_row(row: &Row) -> Result<Self, Error> {
                Ok(($(row.try_get($at)?,)*))
            }
        }
    )*};
}

tuples! {
    A 0, B 1;
    A 0, B 1, C 2;
}

/// Values with the types that the server takes them for.
type Arguments<'a> = Vec<(Box<dyn ToSql + Sync + Send + 'a>, Type)>;

/// A statement with its arguments.
pub(crate) struct Query<'a> {
    sql: Cow<'a, str>,
    arguments: Arguments<'a>,
}

/// A statement without arguments as yet; `$1` and so on are what [`Query::bind`] gives, in order.
pub(crate) fn query<'a>(sql: impl Into<Cow<'a, str>>) -> Query<'a> {
    Query {
        sql: sql.into(),
        arguments: Vec::new(),
    }
}

impl<'a> Query<'a> {
    /// Adds the next argument.
    pub(crate) fn bind<T: Argument + 'a>(mut self, value: T) -> Self {
        self.arguments.push((Box::new(value), T::TYPE));
        self
    }

    /// Prepares the statement once a session: that takes a round trip at its first use.
    pub(crate) async fn kept(self, conn: &Connection) -> Result<Kept<'a>, Error> {
        let types: Vec<Type> = self.arguments.iter().map(|(_, t)| t.clone()).collect();
        Ok(Kept {
            statement: conn.statement(&self.sql, &types).await?,
            arguments: self.arguments,
        })
    }

    /// All rows.
    pub(crate) async fn rows(self, client: &Client) -> Result<Vec<Row>, Error> {
        client.query_typed(&self.sql, &self.typed()).await
    }

    /// The only row.
    pub(crate) async fn row(self, client: &Client) -> Result<Row, Error> {
        client.query_typed_one(&self.sql, &self.typed()).await
    }

    /// The only row, if there is one.
    pub(crate) async fn optional(self, client: &Client) -> Result<Option<Row>, Error> {
        client.query_typed_opt(&self.sql, &self.typed()).await
    }

    /// The only value of the only row.
    pub(crate) async fn value<T>(self, client: &Client) -> Result<T, Error>
    where
        T: for<'r> FromSql<'r>,
    {
        self.row(client).await?.try_get(0)
    }

    /// The values of the only row.
    pub(crate) async fn tuple<T: FromRow>(self, client: &Client) -> Result<T, Error> {
        T::from_row(&self.row(client).await?)
    }

    /// The values of each row.
    pub(crate) async fn tuples<T: FromRow>(self, client: &Client) -> Result<Vec<T>, Error> {
        self.rows(client).await?.iter().map(T::from_row).collect()
    }

    /// The first value of each row.
    pub(crate) async fn values_of<T>(self, client: &Client) -> Result<Vec<T>, Error>
    where
        T: for<'r> FromSql<'r>,
    {
        let rows = self.rows(client).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// The first value of the only row, if there is one.
    pub(crate) async fn optional_value<T>(self, client: &Client) -> Result<Option<T>, Error>
    where
        T: for<'r> FromSql<'r>,
    {
        let row = self.optional(client).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    /// Carries it out; the number of rows that it wrote.
    pub(crate) async fn execute(self, client: &Client) -> Result<u64, Error> {
        client.execute_typed(&self.sql, &self.typed()).await
    }

    fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        let arguments = self.arguments.iter();
        arguments
            .map(|(value, t)| -> (&(dyn ToSql + Sync), Type) { (value.as_ref(), t.clone()) })
            .collect()
    }
}

/// A statement that its session has prepared, with its arguments.
pub(crate) struct Kept<'a> {
    statement: Statement,
    arguments: Arguments<'a>,
}

impl Kept<'_> {
    /// The only row.
    pub(crate) async fn row(self, client: &Client) -> Result<Row, Error> {
        client.query_one(&self.statement, &self.values()).await
    }

    /// Carries it out; the number of rows that it wrote.
    pub(crate) async fn execute(self, client: &Client) -> Result<u64, Error> {
        client.execute(&self.statement, &self.values()).await
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        let values = self.arguments.iter();
        values
            .map(|(value, _)| -> &(dyn ToSql + Sync) { value.as_ref() })
            .collect()
    }
}
