//! `flywheel demo`: a real history through the whole product, over HTTP, with what came of it held against the file.

pub mod dataset;
