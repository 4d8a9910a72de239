//! What the product itself asks of a read model: typed answers over a few pooled read-only connections.
//!
//! Every question about people takes the tenant it is asked for. Statements are written once, in the SQL that both databases read; their
//! placeholders are SQLite's. People's own SQL is in `query`.

use super::bulk::Cell;
use super::query::{self, Limits, Rows};
use super::sqlite::files::Files;
use super::value::Row;
use super::{Error, Place, day, person, sqlite};
use crate::domain::{Incarnation, Millis, Money, Namespace, Offset, Subject, TenantId};

/// How many of a person's events a trace shows, the newest.
const TRACE_EVENTS_MAX: i64 = 200;

/// Whether outcome `o` of message `?1` can be shown to be tenant `?2`'s. Tenants choose their message ids, so the same one may be several
/// tenants'. Outcomes before version 2 of their schema name no tenant: such a one is if its dead letter says so, or if nobody else's data is
/// in this namespace.
const IS_OF_TENANT: &str = "\
    CASE WHEN o.tenant_id IS NOT NULL THEN o.tenant_id = ?2 ELSE \
    EXISTS (SELECT 1 FROM dead_letters AS d WHERE d.message_id = ?1 AND d.tenant_id = ?2 AND d.stage = o.stage \
            AND d.origin_partition = o.log_partition AND d.origin_offset = o.log_offset) \
    OR (EXISTS (SELECT 1 FROM daily_totals WHERE tenant_id = ?2) \
        AND NOT EXISTS (SELECT 1 FROM daily_totals WHERE tenant_id <> ?2) \
        AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE tenant_id <> ?2)) END";

/// A cheap handle; clones share the connections.
#[derive(Clone)]
pub struct Reader(Source);

#[derive(Clone)]
enum Source {
    Sqlite(sqlite::read::Source),
    #[cfg(feature = "postgres")]
    Postgres(super::postgres::read::Source),
}

/// An event as a trace shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TracedEvent {
    pub message_id: String,
    pub user_id: Option<String>,
    pub anonymous_id: Option<String>,
    pub name: String,
    pub time: Millis,
    pub received_at: Millis,
    /// Where it came in: `intake` partition and offset.
    pub intake: (u32, u64),
    /// Where it was written to: `events` partition and offset.
    pub events: (u32, u64),
    /// Where the newest profile of its person is: offset in `profiles`, in the partition of `events`.
    pub profile: Option<u64>,
}

/// A record that was not applied, as a trace shows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TracedOutcome {
    pub stage: String,
    pub message_id: String,
    pub kind: String,
    pub reason: String,
    /// What exactly is wrong; only dead letters say.
    pub detail: Option<String>,
    pub at: Millis,
    /// The topic that the stage read it from, and where there.
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

/// Everything the read model knows of a message or a person's messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Trace {
    pub events: Vec<TracedEvent>,
    pub outcomes: Vec<TracedOutcome>,
    pub dead_letters: Vec<TracedOutcome>,
}

impl Trace {
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.outcomes.is_empty() && self.dead_letters.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// `u:ID` or `a:ID`.
    pub subject: String,
    pub since: Millis,
}

/// A segment at the end of one UTC day.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SegmentSize {
    pub day: String,
    pub members: i64,
    pub entered: i64,
    pub left: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SegmentSummary {
    pub segment: String,
    pub members: i64,
    pub entered: i64,
    pub left: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Revenue {
    pub currency: String,
    pub orders: i64,
    pub amount: Money,
    pub refunds: Money,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OutcomeTotal {
    pub stage: String,
    pub kind: String,
    pub reason: String,
    pub records: i64,
}

/// What a load is held against: its file, or what its sender counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Reconciliation {
    pub events: i64,
    /// People (users and devices) with at least one event.
    pub subjects: i64,
    pub revenue: Vec<Revenue>,
    /// Over all tenants of the namespace: a record without a readable key has no tenant.
    pub outcomes: Vec<OutcomeTotal>,
}

#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStatus {
    pub topic: String,
    pub partition: u32,
    pub next_offset: Offset,
    pub lag: u64,
    pub updated_at: Option<Millis>,
    /// Of the log whose offsets these are.
    pub incarnation: Incarnation,
}

impl Reader {
    /// Of `namespace`'s read model in `place`; it need not exist yet.
    pub fn new(place: impl Into<Place>, namespace: &Namespace) -> Self {
        Self(match place.into() {
            Place::Folder(dir) => Source::Sqlite(sqlite::read::Source::new(Files::new(&dir, namespace))),
            #[cfg(feature = "postgres")]
            Place::Postgres(postgres) => Source::Postgres(super::postgres::read::Source::new(postgres, namespace)),
        })
    }

    /// The same, believing what the pointer said for this long.
    #[cfg(test)]
    pub(super) fn believing_for(self, believed_for: std::time::Duration) -> Self {
        match self.0 {
            Source::Sqlite(source) => Self(Source::Sqlite(source.believing_for(believed_for))),
            #[cfg(feature = "postgres")]
            source => Self(source),
        }
    }

    /// One statement of a person's own; see [`query::query`].
    pub async fn query(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        query::check_statement(sql)?;
        match &self.0 {
            Source::Sqlite(source) => source.query(sql, limits).await,
            #[cfg(feature = "postgres")]
            Source::Postgres(source) => source.query(sql, limits).await,
        }
    }

    /// The same on a connection of its own, for a process that asks once.
    pub(super) async fn query_alone(&self, sql: &str, limits: Limits) -> Result<Rows, Error> {
        match &self.0 {
            Source::Sqlite(source) => source.query_alone(sql, limits).await,
            #[cfg(feature = "postgres")]
            Source::Postgres(source) => source.query_alone(sql, limits).await,
        }
    }

    /// True if an event with this message id can be read.
    pub async fn is_visible(&self, tenant: &TenantId, message_id: &str) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM events WHERE message_id = ? AND tenant_id = ? LIMIT 1";
        Ok(!self.rows(sql.to_owned(), &[message_id, tenant.as_str()]).await?.is_empty())
    }

    /// Every tenant that anything happened to here.
    pub async fn tenants(&self) -> Result<Vec<String>, Error> {
        let rows = self.rows("SELECT DISTINCT tenant_id FROM daily_totals ORDER BY 1".to_owned(), &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Whether there is anything of this tenant: events, runs, workflows of its own, suppressed addresses.
    pub async fn knows(&self, tenant: &TenantId) -> Result<bool, Error> {
        let of = |table: &str| format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE tenant_id = ?1)");
        for table in ["daily_totals", "wf_funnel", "wf_active", "wf_suppressions"] {
            let found = self.rows(of(table), &[tenant.as_str()]).await?;
            if found.first().is_some_and(|row| row.get::<i64>(0) == 1) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whose a device has become, the last tie; none if nobody said.
    pub async fn user_of(&self, tenant: &TenantId, device: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT user_id FROM identities WHERE tenant_id = ? AND anonymous_id = ? ORDER BY since DESC, ordinal DESC LIMIT 1";
        let rows = self.rows(sql.to_owned(), &[tenant.as_str(), device]).await?;
        Ok(rows.first().map(|row| row.get(0)))
    }

    /// A person's profile as JSON.
    pub async fn profile(&self, tenant: &TenantId, subject: &Subject) -> Result<Option<serde_json::Value>, Error> {
        let sql = "SELECT * FROM profiles WHERE tenant_id = ? AND subject = ?";
        let rows = self.rows(sql.to_owned(), &[tenant.as_str(), &subject.to_string()]).await?;
        Ok(rows.first().map(person::to_json))
    }

    /// Where a message went, or, if `what` is no message id, where the messages of the user or device `what` went.
    pub async fn trace(&self, tenant: &TenantId, what: &str) -> Result<Trace, Error> {
        let by_message = Trace {
            events: self.traced_events("message_id = ?", tenant, what).await?,
            outcomes: self.traced_outcomes(tenant, what).await?,
            dead_letters: self.traced_dead_letters("message_id = ?", tenant, what).await?,
        };
        if !by_message.is_empty() {
            return Ok(by_message);
        }
        let (user, device) = match what.split_once(':') {
            Some(("u", id)) => (Some(id), None),
            Some(("a", id)) => (None, Some(id)),
            _ => (Some(what), Some(what)),
        };
        let mut trace = Trace::default();
        for (filter, subject, id) in [("user_id = ?", 'u', user), ("user_id IS NULL AND anonymous_id = ?", 'a', device)] {
            let Some(id) = id else { continue };
            trace.events.extend(self.traced_events(filter, tenant, id).await?);
            trace.dead_letters.extend(self.traced_dead_letters("subject = ?", tenant, &format!("{subject}:{id}")).await?);
        }
        Ok(trace)
    }

    async fn traced_events(&self, filter: &'static str, tenant: &TenantId, what: &str) -> Result<Vec<TracedEvent>, Error> {
        let sql = format!(
            "SELECT message_id, user_id, anonymous_id, event_name, timestamp, received_at, \
             origin_partition, origin_offset, log_partition, log_offset, \
             (SELECT p.log_offset FROM profiles AS p WHERE p.tenant_id = events.tenant_id \
              AND p.subject = coalesce('u:' || events.user_id, 'a:' || events.anonymous_id)) \
             FROM events WHERE {filter} AND tenant_id = ? ORDER BY timestamp DESC, event_id DESC LIMIT {TRACE_EVENTS_MAX}"
        );
        let rows = self.rows(sql, &[what, tenant.as_str()]).await?;
        let mut events: Vec<TracedEvent> = rows
            .iter()
            .map(|row| TracedEvent {
                message_id: row.get(0),
                user_id: row.get(1),
                anonymous_id: row.get(2),
                name: row.get(3),
                time: Millis(row.get(4)),
                received_at: Millis(row.get(5)),
                intake: (row.get(6), row.get::<i64>(7) as u64),
                events: (row.get(8), row.get::<i64>(9) as u64),
                profile: row.get::<Option<i64>>(10).map(|offset| offset as u64),
            })
            .collect();
        events.reverse();
        Ok(events)
    }

    async fn traced_outcomes(&self, tenant: &TenantId, message_id: &str) -> Result<Vec<TracedOutcome>, Error> {
        let sql = format!(
            "SELECT stage, message_id, kind, reason, NULL, at, CASE stage WHEN 'intake' THEN 'intake' ELSE 'events' END, log_partition, log_offset FROM outcomes AS o WHERE message_id = ?1 AND ({IS_OF_TENANT}) \
             ORDER BY at, log_partition, log_offset LIMIT 1000"
        );
        Ok(self.rows(sql, &[message_id, tenant.as_str()]).await?.iter().map(traced_outcome).collect())
    }

    async fn traced_dead_letters(&self, filter: &'static str, tenant: &TenantId, what: &str) -> Result<Vec<TracedOutcome>, Error> {
        let sql = format!(
            "SELECT stage, coalesce(message_id, ''), 'dead_lettered', reason, detail, at, topic, origin_partition, origin_offset \
             FROM dead_letters WHERE {filter} AND coalesce(tenant_id, ?) = ? ORDER BY dead_letter_id LIMIT 1000"
        );
        Ok(self.rows(sql, &[what, tenant.as_str(), tenant.as_str()]).await?.iter().map(traced_outcome).collect())
    }

    /// Members of a segment in order of their subject, after `after`, at most `limit`.
    pub async fn members(&self, tenant: &TenantId, segment: &str, after: Option<&str>, limit: u32) -> Result<Vec<Member>, Error> {
        let sql = format!(
            "SELECT subject, since FROM membership WHERE tenant_id = ? AND segment = ? AND subject > ? ORDER BY subject LIMIT {limit}"
        );
        let rows = self.rows(sql, &[tenant.as_str(), segment, after.unwrap_or("")]).await?;
        Ok(rows.iter().map(|row| Member { subject: row.get(0), since: Millis(row.get(1)) }).collect())
    }

    /// Every segment that anyone ever entered, with its present size.
    pub async fn segments(&self, tenant: &TenantId) -> Result<Vec<SegmentSummary>, Error> {
        let sql = "SELECT segment, CAST(sum(entered) AS BIGINT), CAST(sum(\"left\") AS BIGINT) FROM segment_daily WHERE tenant_id = ? GROUP BY segment ORDER BY segment";
        let rows = self.rows(sql.to_owned(), &[tenant.as_str()]).await?;
        let summary = |row: &Row| {
            let (entered, left): (i64, i64) = (row.get(1), row.get(2));
            SegmentSummary { segment: row.get(0), members: entered - left, entered, left }
        };
        Ok(rows.iter().map(summary).collect())
    }

    /// A segment's size at the end of every day from its first change to its last, days without a change included.
    pub async fn segment_sizes(&self, tenant: &TenantId, segment: &str) -> Result<Vec<SegmentSize>, Error> {
        let sql = "SELECT day, entered, \"left\" FROM segment_daily WHERE tenant_id = ? AND segment = ? ORDER BY day";
        let rows = self.rows(sql.to_owned(), &[tenant.as_str(), segment]).await?;
        let (mut sizes, mut members): (Vec<SegmentSize>, i64) = (Vec::new(), 0);
        for row in rows {
            let (text, entered, left): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
            let last = sizes.last().and_then(|size| day::number(&size.day));
            if let (Some(last), Some(this)) = (last, day::number(&text)) {
                sizes.extend((last + 1..this).map(|quiet| SegmentSize { day: day::text(quiet), members, entered: 0, left: 0 }));
            }
            members += entered - left;
            sizes.push(SegmentSize { day: text, members, entered, left });
        }
        Ok(sizes)
    }

    pub async fn reconciliation(&self, tenant: &TenantId) -> Result<Reconciliation, Error> {
        let tenant = tenant.as_str();
        let counts = "SELECT (SELECT CAST(coalesce(sum(events), 0) AS BIGINT) FROM daily_totals WHERE tenant_id = ?1), \
                      (SELECT count(DISTINCT subject) FROM daily_actives WHERE tenant_id = ?1)";
        let counts = self.rows(counts.to_owned(), &[tenant]).await?;
        let revenue = "SELECT currency, CAST(sum(orders) AS BIGINT), CAST(sum(revenue_micros) AS BIGINT), CAST(sum(refunds_micros) AS BIGINT) FROM daily_revenue \
                       WHERE tenant_id = ? GROUP BY 1 ORDER BY 1";
        let revenue = self.rows(revenue.to_owned(), &[tenant]).await?;
        let outcomes = "SELECT stage, kind, reason, records FROM outcome_totals ORDER BY 1, 2, 3";
        let outcomes = self.rows(outcomes.to_owned(), &[]).await?;
        let money = |row: &Row| Revenue { currency: row.get(0), orders: row.get(1), amount: Money(row.get(2)), refunds: Money(row.get(3)) };
        let outcome = |row: &Row| OutcomeTotal { stage: row.get(0), kind: row.get(1), reason: row.get(2), records: row.get(3) };
        Ok(Reconciliation {
            events: counts[0].get(0),
            subjects: counts[0].get(1),
            revenue: revenue.iter().map(money).collect(),
            outcomes: outcomes.iter().map(outcome).collect(),
        })
    }

    /// How far the read model has come, for a process that is not the one projecting.
    pub async fn status(&self) -> Result<Vec<PartitionStatus>, Error> {
        let sql = "SELECT topic, partition, next_offset, lag, updated_at, incarnation FROM processing_status ORDER BY topic, partition";
        let status = |row: &Row| PartitionStatus {
            topic: row.get(0),
            partition: row.get(1),
            next_offset: Offset(row.get::<i64>(2) as u64),
            lag: row.get::<i64>(3) as u64,
            updated_at: row.get::<Option<i64>>(4).map(Millis),
            incarnation: Incarnation(row.get(5)),
        };
        Ok(self.rows(sql.to_owned(), &[]).await?.iter().map(status).collect())
    }

    pub(super) async fn rows(&self, sql: String, arguments: &[&str]) -> Result<Vec<Row>, Error> {
        let cells = arguments.iter().map(|argument| Cell::from(*argument)).collect();
        match &self.0 {
            Source::Sqlite(source) => source.rows(sql, cells).await,
            #[cfg(feature = "postgres")]
            Source::Postgres(source) => source.rows(&sql, cells).await,
        }
    }
}

fn traced_outcome(row: &Row) -> TracedOutcome {
    TracedOutcome {
        stage: row.get(0),
        message_id: row.get(1),
        kind: row.get(2),
        reason: row.get(3),
        detail: row.get(4),
        at: Millis(row.get(5)),
        topic: row.get(6),
        partition: row.get(7),
        offset: row.get::<i64>(8) as u64,
    }
}
