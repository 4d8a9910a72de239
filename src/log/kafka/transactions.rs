//! Transactional producers: made, and used to end those of others.

use std::sync::Arc;

use rdkafka::producer::{BaseProducer, Producer};

use super::Options;
use super::client::{self, Complaints};
use super::delivery::Reports;
use crate::log::Error;

/// The transactional id of this process.
pub(super) fn id(options: &Options) -> String {
    format!("{}flywheel.{}", options.prefix, options.instance)
}

/// A producer under a transactional id whose former epochs are fenced, and whose open transaction has ended.
pub(super) fn producer(options: &Options, complaints: &Complaints, id: &str) -> Result<Arc<BaseProducer<Reports>>, Error> {
    let mut config = client::writing(options);
    config
        .set("transactional.id", id)
        .set("transaction.timeout.ms", options.transaction_timeout.as_millis().to_string())
        // A transaction that cannot be written within its timeout is aborted anyway.
        .set("message.timeout.ms", options.transaction_timeout.as_millis().to_string());
    let producer: BaseProducer<Reports> =
        config.create_with_context(Reports::new(complaints)).map_err(|error| client::refused_setting(&error))?;
    let begun = producer.init_transactions(options.transaction_timeout + options.call_timeout);
    begun.map_err(|error| client::meaning("beginning to write transactions", &error, complaints, options))?;
    Ok(Arc::new(producer))
}

/// Ends the open transaction of `id` and refuses it another until it begins anew.
pub(super) fn fence(options: &Options, complaints: &Complaints, id: &str) -> Result<(), Error> {
    producer(options, complaints, id).map(drop)
}
