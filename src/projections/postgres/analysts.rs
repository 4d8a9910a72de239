//! Logins that see one tenant's rows: who they are, what they are granted, and who cannot be one.
//!
//! Which tenant a login sees follows from the name it logged in with (`session_user`), which no statement of its own can change: not SET,
//! not SET ROLE, not a function or a view. `migrations/postgres/policies.sql` has the policies; a role only needs rights to read.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};

use super::{bounded, literal, quoted};
use crate::projections::Error;
use crate::projections::place::Analyst;

/// Tables that analysts may read, each under a policy; `processing_status` and `wf_time` have no tenant and say only how far things are.
/// What is of all tenants together (`outcome_totals`, `unreadable_records` and the like) is not among them.
const READABLE: [&str; 29] = [
    "processing_status",
    "events",
    "daily_actives",
    "daily_events",
    "daily_totals",
    "daily_revenue",
    "profiles",
    "membership",
    "membership_history",
    "segment_daily",
    "identities",
    "dead_letters",
    "outcomes",
    "session_corrections",
    "wf_definitions",
    "wf_active",
    "wf_publications",
    "wf_runs",
    "wf_steps",
    "wf_effects",
    "wf_messages",
    "wf_approvals",
    "wf_arms",
    "wf_funnel",
    "wf_ways",
    "wf_errors",
    "wf_skips",
    "wf_notifications",
    "wf_suppressions",
];

/// Refuses roles that are not there and roles that no policy would hold.
pub async fn check(connection: &mut PgConnection, analysts: &[Analyst], at_most: Duration) -> Result<(), Error> {
    let refused = |what: String| Err(Error::Setting { key: "postgres.analysts", what });
    for Analyst { role, .. } in analysts {
        let sql = "SELECT rolsuper OR rolbypassrls, pg_has_role(oid, (SELECT oid FROM pg_roles WHERE rolname = current_user), 'MEMBER') \
                   FROM pg_roles WHERE rolname = $1";
        let query = sqlx::query(sql).bind(role).fetch_optional(&mut *connection);
        let Some(found) = bounded(at_most, query).await.map_err(Error::sql("analysts"))? else {
            return refused(format!("there is no role {role:?}; CREATE ROLE {} LOGIN PASSWORD '...'", quoted(role)));
        };
        if found.get(0) {
            return refused(format!("role {role:?} is a superuser or has BYPASSRLS: it would see every tenant"));
        }
        if found.get(1) {
            return refused(format!(
                "role {role:?} is the user of postgres.url or a member of it, who owns the tables and sees every tenant"
            ));
        }
    }
    Ok(())
}

/// Says in the generation's schema who sees whom, and lets them read it and the views over it. Who is no analyst any more sees nothing.
pub async fn allow(connection: &mut PgConnection, tables: &str, views: &str, analysts: &[Analyst], at_most: Duration) -> Result<(), Error> {
    check(connection, analysts, at_most).await?;
    let mut sql = format!("BEGIN; DELETE FROM {}.analysts;", quoted(tables));
    for Analyst { role, tenant } in analysts {
        let (role, tenant) = (literal(role), literal(tenant.as_str()));
        sql.push_str(&format!("INSERT INTO {}.analysts VALUES ({role}, {tenant}) ON CONFLICT DO NOTHING;", quoted(tables)));
    }
    let named = READABLE.into_iter().chain(["wf_time", "analysts"]).map(|table| format!("{}.{table}", quoted(tables)));
    let named = named.collect::<Vec<_>>().join(", ");
    for role in analysts.iter().map(|analyst| quoted(&analyst.role)).collect::<BTreeSet<_>>() {
        sql.push_str(&format!(
            "GRANT USAGE ON SCHEMA {}, {} TO {role}; GRANT SELECT ON {named} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {role};",
            quoted(tables),
            quoted(views),
            quoted(views)
        ));
    }
    sql.push_str("COMMIT");
    let allowed = bounded(at_most, sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection)).await;
    allowed.map_err(Error::sql("analysts")).map(drop)
}
