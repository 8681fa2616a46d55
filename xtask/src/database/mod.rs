//! Native queries.
