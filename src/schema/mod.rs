//! What the bytes in every topic mean: record types, their Avro schemas (`schemas/*.avsc`), versions and upcasts.
//!
//! Domain types are not wire types; this module converts both ways. A value is `codec u8 | schema version u8 | body`: codec 0 is plain
//! Avro binary, 1 is Avro sealed with the person's data key (reserved from the first version on, refused until keys exist).

pub mod records;
