//! One integration binary; each file is one contract or behaviour of the whole.

mod state_contract;
