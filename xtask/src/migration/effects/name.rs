//! The name of a table or another object.

use std::fmt;

use crate::migration::quote::quote;

/// A name as the server looks it up: without quotes, lowercase unless it was quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    /// `None`: whatever the search path finds first.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl ObjectName {
    /// Without its schema where that is the one to which names without one lead: `public.users` and
    /// `users` are one table.
    pub(crate) fn within(&self, schema: Option<&str>) -> ObjectName {
        ObjectName {
            schema: self.schema.clone().filter(|own| Some(&**own) != schema),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectName {
    /// As SQL: quoted where that is needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote(schema))?;
        }
        f.write_str(&quote(&self.name))
    }
}
