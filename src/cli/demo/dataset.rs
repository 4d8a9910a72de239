//! The shipped data sets as the events an SDK would have sent.
//!
//! A message id comes from the row number: equal rows are purchases of their own. The clickstream keeps the file's session id in its
//! properties, as the check for ours.
//!
//! The purchases know no addresses, so the demonstration makes some up: each customer's first purchase comes with an identify that gives a
//! name, an address that cannot exist, and a time zone; one in fifty says no to marketing.

use std::io::Read;

use anyhow::Context;
use flate2::read::GzDecoder;
use serde_json::json;

use crate::domain::{Millis, Money};

/// Compiled in, so that the demonstration needs nothing beside the binary.
const CDNOW: &[u8] = include_bytes!("../../../data/cdnow_master.csv");
const CLICKSTREAM: &[u8] = include_bytes!("../../../data/ecommerce_clickstream.csv.gz");

/// One event ready to send.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub user: String,
    pub message_id: String,
    pub time: Millis,
    pub json: String,
}

/// What the file says, to hold the results against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Truth {
    /// Purchases or clicks, and those that were made up.
    pub events: u64,
    pub made_up: u64,
    pub users: u64,
    pub orders: u64,
    pub revenue: Money,
    pub sessions: u64,
}

#[derive(Debug)]
pub struct History {
    /// Sorted by time, each user's rows in file order.
    pub events: Vec<Outgoing>,
    pub truth: Truth,
    /// The importer's last statement: everything before this has been sent.
    pub end: Millis,
}

pub fn cdnow() -> anyhow::Result<History> {
    let mut truth = Truth::default();
    let mut users = std::collections::BTreeSet::new();
    let mut events = Vec::new();
    for (row, record) in csv::Reader::from_reader(CDNOW).records().enumerate() {
        let record = record?;
        let (customer, date, cds, dollars) = (&record[0], &record[1], &record[2], &record[3]);
        let time = Millis::parse(date).with_context(|| format!("row {row}: {date:?} is no date"))?;
        let revenue = Money::parse(dollars)?;
        let quantity: u32 = cds.parse()?;
        truth.events += 1;
        truth.orders += 1;
        truth.revenue = truth.revenue.saturating_add(revenue);
        if users.insert(customer.to_owned()) {
            truth.events += 1;
            truth.made_up += 1;
            events.push(introduction(customer, date, time));
        }
        let message_id = format!("cdnow-{:05}", row + 1);
        let amount: serde_json::Number = dollars.parse()?;
        let event = json!({
            "type": "track", "event": "Order Completed", "userId": customer, "messageId": message_id, "timestamp": date.to_owned() + "T00:00:00.000Z",
            "properties": {"order_id": format!("{:05}", row + 1), "total": amount, "currency": "USD", "quantity": quantity},
        });
        events.push(Outgoing { user: customer.to_owned(), message_id, time, json: event.to_string() });
    }
    truth.users = users.len() as u64;
    events.sort_by_key(|event| event.time);
    let end = events.last().context("the file is empty")?.time + crate::domain::DAY_MS;
    Ok(History { events, truth, end })
}

const NAMES: [&str; 12] = ["Ada", "Bo", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana", "Ian", "Joy", "Kim", "Lou"];
const ZONES: [&str; 4] = ["America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles"];

/// Who a customer is, made up from their number. The domain is reserved for examples (RFC 2606): nothing can ever be delivered there.
fn introduction(customer: &str, date: &str, time: Millis) -> Outgoing {
    let number: usize = customer.parse().unwrap_or(0);
    let message_id = format!("who-{customer}");
    let mut traits = json!({
        "first_name": NAMES[number % NAMES.len()], "email": format!("customer-{customer}@example.com"), "timezone": ZONES[number / 7 % ZONES.len()],
    });
    if number.is_multiple_of(50) {
        traits["consent"] = json!({"marketing": false});
    }
    let event = json!({
        "type": "identify", "userId": customer, "messageId": message_id, "timestamp": date.to_owned() + "T00:00:00.000Z", "traits": traits,
    });
    Outgoing { user: customer.to_owned(), message_id, time, json: event.to_string() }
}

pub fn clickstream() -> anyhow::Result<History> {
    let mut text = String::new();
    GzDecoder::new(CLICKSTREAM).read_to_string(&mut text)?;
    let mut truth = Truth::default();
    let mut users = std::collections::BTreeSet::new();
    let mut sessions = std::collections::BTreeSet::new();
    let mut events = Vec::new();
    for (row, record) in csv::Reader::from_reader(text.as_bytes()).records().enumerate() {
        let record = record?;
        let (user, session, name, when) = (&record[0], &record[1], &record[2], &record[3]);
        let instant = when.replace(' ', "T") + "Z";
        let time = Millis::parse(&instant).with_context(|| format!("row {row}: {when:?} is no time"))?;
        truth.events += 1;
        truth.orders += u64::from(name == "purchase");
        users.insert(user.to_owned());
        sessions.insert(session.to_owned());
        let message_id = format!("click-{:05}", row + 1);
        let event = json!({
            "type": "track", "event": name, "userId": user, "messageId": message_id, "timestamp": instant,
            "properties": {"session_id": session, "platform": &record[4], "user_cohort": &record[6], "user_lifecycle": &record[7]},
            "context": {"campaign": {"source": &record[5]}},
        });
        events.push(Outgoing { user: user.to_owned(), message_id, time, json: event.to_string() });
    }
    truth.users = users.len() as u64;
    truth.sessions = sessions.len() as u64;
    events.sort_by_key(|event| event.time);
    let end = (events.last().context("the file is empty")?.time + crate::domain::DAY_MS).floor_to(crate::domain::DAY_MS);
    Ok(History { events, truth, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purchases_are_those_of_the_literature() {
        let history = cdnow().unwrap();
        let expected = Truth {
            events: 69_659 + 23_570,
            made_up: 23_570,
            users: 23_570,
            orders: 69_659,
            revenue: Money::parse("2500315.63").unwrap(),
            sessions: 0,
        };
        assert_eq!(history.truth, expected);
        assert_eq!(history.end, Millis::parse("1998-07-01").unwrap());
    }

    #[test]
    fn the_clickstream_has_its_sessions() {
        let truth = clickstream().unwrap().truth;
        assert_eq!((truth.events, truth.users, truth.orders, truth.sessions), (31_106, 600, 470, 3_605));
    }
}
