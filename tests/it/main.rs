//! One integration binary; each file is one contract or behaviour of the whole.

mod log_contract;
mod state_contract;
mod tidy;
