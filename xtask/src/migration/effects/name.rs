//! The name of a table or another object.

use std::fmt;

use crate::migration::quote::quote_if_needed;

/// A name as the server looks it up: without quotes, lowercase unless it was quoted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    /// `None`: the first one in the search path.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl ObjectName {
    /// The name without its schema, if that is `schema`, in which names without one are looked up:
    /// `public.users` and `users` are the same table.
    pub(crate) fn within(&self, schema: Option<&str>) -> ObjectName {
        ObjectName {
            schema: self.schema.clone().filter(|own| Some(&**own) != schema),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for ObjectName {
    /// As SQL, quoted where necessary.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", quote_if_needed(schema))?;
        }
        f.write_str(&quote_if_needed(&self.name))
    }
}
