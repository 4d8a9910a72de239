//! An analyst's login sees one tenant's rows, whatever it tries. Each attempt is made by a real login on a real server.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::services::{database, fresh_name};
use super::workflows::append_fact;
use super::*;

/// A shop with two tenants, and the login of one's analyst.
struct Shop {
    world: World,
    options: PostgresOptions,
    url: &'static str,
    role: String,
}

impl Shop {
    fn open() -> Option<Self> {
        let url = database()?;
        let role = fresh_name("analyst");
        let mut owner = connect(url, None);
        run(&mut owner, &format!("CREATE ROLE {role} LOGIN PASSWORD 'open'")).unwrap();
        let options = PostgresOptions {
            url: url.to_owned(),
            prefix: format!("{}_", fresh_name("rls")),
            timeout_ms: 60_000,
            analysts: vec![Analyst { role: role.clone(), tenant: TenantId::new("acme").unwrap() }],
            ..PostgresOptions::default()
        };
        let world = World::of(Place::postgres(&options).unwrap(), tempfile::tempdir().unwrap());
        for (tenant, user) in [("acme", "ann"), ("rival", "secret-bob")] {
            fill(&world, tenant, user);
        }
        // Workflows are acme's alone here: the rival must not learn of them, nor acme's analyst of anything else.
        for (number, (subject, facts)) in workflows::journals().iter().take(4).enumerate() {
            facts.iter().for_each(|fact| append_fact(&world, number as u32 % 2, subject, fact));
        }
        world.project();
        Some(Self { world, options, url, role })
    }

    fn live(&self) -> String {
        format!("\"{}shop\"", self.options.prefix)
    }

    fn tables(&self, generation: u64) -> String {
        format!("\"{}shop$g{generation}\"", self.options.prefix)
    }

    /// A session of the analyst's, in the schema of the views.
    fn analyst(&self) -> PgConnection {
        let mut session = connect(self.url, Some(&self.role));
        run(&mut session, &format!("SET search_path = {}", self.live())).unwrap();
        session
    }
}

fn fill(world: &World, tenant: &str, user: &str) {
    let subject = format!("u:{user}");
    let email = format!("{user}@example.com");
    for at in 0..20 {
        let name = format!("{user} bought {at}");
        world.append_of(tenant, "events", 0, &subject, &EventsRecord::Event(event(&name, DAY * (1 + at), r#"{"revenue":5}"#)));
    }
    let traits = format!(r#"{{"email":"{email}"}}"#);
    let record = ProfileRecord { traits: &traits, ..profile(&subject, &[("orders", Field::Int(3)), ("churn", Field::Float(0.5))]) };
    world.append_of(tenant, "profiles", 0, &subject, &record);
    let change = SegmentChange { segment: user, digest: "d", entered: true, at: DAY, cause: user, late: false };
    world.append_of(tenant, "segment_changes", 0, &subject, &change);
    let ties = vec![Tie { user_id: user.to_owned(), from: 1 }];
    world.append_of(tenant, "identities", 0, &format!("a:{user}"), &IdentityRecord { ties });
    let origin = Origin { incarnation: 1, partition: 0, offset: 8 };
    let letter = DeadLetter {
        topic: "intake",
        origin,
        stage: "intake",
        reason: "bad",
        detail: user,
        message_id: user,
        at: 4,
        value: b"",
        headers: Default::default(),
    };
    world.append_of(tenant, "dead_letters", 0, &subject, &letter);
    let exception = RecordOutcome {
        offset: 7,
        message_id: user.to_owned(),
        kind: "filtered".to_owned(),
        reason: "bot".to_owned(),
        tenant: tenant.to_owned(),
    };
    let outcomes = BatchOutcomes {
        stage: format!("intake {user}"),
        partition: 0,
        from_offset: 0,
        to_offset: 10,
        at: 4,
        records: 1,
        applied: 0,
        duplicate: 0,
        filtered: 1,
        dead_lettered: 0,
        control: 0,
        exceptions: vec![exception],
    };
    world.append("outcomes", 0, "", &outcomes);
}

fn connect(url: &str, role: Option<&str>) -> PgConnection {
    let mut options: PgConnectOptions = url.parse().unwrap();
    if let Some(role) = role {
        options = options.username(role).password("open");
    }
    block_on(options.connect()).unwrap()
}

fn run(session: &mut PgConnection, sql: &str) -> Result<(), String> {
    block_on(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(session)).map(drop).map_err(|error| error.to_string())
}

/// The whole answer as one text; or the error, which may tell as much.
fn told(session: &mut PgConnection, sql: &str) -> String {
    match block_on(sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(session)) {
        Ok(rows) => {
            let cell =
                |row: &sqlx::postgres::PgRow, at| row.try_get_unchecked::<Option<String>, _>(at).unwrap_or_default().unwrap_or_default();
            let line = |row: &sqlx::postgres::PgRow| (0..row.len()).map(|at| cell(row, at)).collect::<Vec<_>>().join("|");
            rows.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn says_nothing_of_the_rival(session: &mut PgConnection, sql: &str) -> String {
    let told = told(session, sql);
    assert!(!told.contains("secret-bob") && !told.contains("rival"), "{sql}: {told}");
    told
}

#[test]
fn every_table_and_view_shows_an_analyst_the_rows_of_their_tenant() {
    let Some(shop) = Shop::open() else { return };
    let mut session = shop.analyst();
    let names = format!(
        "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables WHERE starts_with(table_schema, '{}') ORDER BY 1",
        shop.options.prefix
    );
    let mut owner = connect(shop.url, None);
    let names: Vec<String> = told(&mut owner, &names).lines().map(str::to_owned).collect();
    assert!(names.len() > 90, "{names:?}");
    let mut seen = 0;
    for name in names {
        let found = says_nothing_of_the_rival(&mut session, &format!("SELECT * FROM {name}"));
        seen += usize::from(found.contains("ann"));
        if ["outcome_totals", "outcome_coverage", "unreadable_records", "meta"]
            .iter()
            .any(|table| name.ends_with(&format!("{table}\"")) || name.ends_with(&format!(".{table}")))
        {
            assert!(found.contains("permission denied"), "{name}: {found}");
        }
        if name.contains("events_") && !name.contains("daily_events_") {
            assert!(found.contains("permission denied"), "a part of events is nobody's to read: {name}: {found}");
        }
    }
    assert!(seen > 20, "{seen}");
    assert_eq!(told(&mut session, "SELECT count(*), min(tenant_id), max(tenant_id) FROM events"), "20|acme|acme");
    assert!(told(&mut session, "SELECT count(*) FROM workflow_runs").parse::<u32>().unwrap() > 0);
}

#[test]
fn nothing_that_an_analyst_may_say_shows_more() {
    let Some(shop) = Shop::open() else { return };
    block_on(async {
        let mut owner = shop.options.url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
        owner.execute("ANALYZE").await.unwrap();
    });
    let tables = shop.tables(1);
    let denied = [
        "SET ROLE postgres".to_owned(),
        "SET SESSION AUTHORIZATION postgres".to_owned(),
        "SELECT set_config('role', 'postgres', false)".to_owned(),
        "SELECT set_config('session_authorization', 'postgres', false)".to_owned(),
        "SET row_security = off; SELECT * FROM events".to_owned(),
        format!("INSERT INTO {tables}.analysts VALUES (session_user, 'rival')"),
        format!("UPDATE {tables}.analysts SET tenant_id = 'rival'"),
        format!("ALTER TABLE {tables}.events DISABLE ROW LEVEL SECURITY"),
        format!("CREATE POLICY more ON {tables}.events USING (true)"),
        format!("COPY {tables}.profiles TO '/tmp/profiles'"),
        format!("COPY {tables}.profiles TO PROGRAM 'cat'"),
        "DELETE FROM events".to_owned(),
        "UPDATE profiles SET orders = 0".to_owned(),
        "INSERT INTO daily_totals (tenant_id, day) VALUES ('acme', 'x')".to_owned(),
        format!("CREATE FUNCTION {}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", shop.live()),
        format!("ALTER SCHEMA {} RENAME TO mine", shop.live()),
    ];
    for sql in denied {
        let mut session = shop.analyst();
        let refused = run(&mut session, &sql);
        assert!(refused.is_err(), "{sql}");
        let _ = run(&mut session, "ROLLBACK");
        assert_eq!(told(&mut session, "SELECT DISTINCT tenant_id FROM profiles"), "acme", "after {sql}");
    }
    let mut session = shop.analyst();
    // A function that costs nothing would like to be asked before the policy is.
    let spy = "CREATE FUNCTION pg_temp.spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS \
               $$ BEGIN PERFORM set_config('spy.seen', current_setting('spy.seen', true) || $1, false); RETURN true; END $$; SET spy.seen = ''";
    run(&mut session, spy).unwrap();
    let innocent = [
        "SELECT count(*) FROM events WHERE pg_temp.spy(tenant_id || user_id || event_name)",
        "SELECT count(*) FROM v_events WHERE pg_temp.spy(coalesce(user_id, ''))",
        "SELECT count(*) FROM workflow_runs WHERE pg_temp.spy(subject)",
        "SELECT count(*) FROM users WHERE pg_temp.spy(email)",
        "SELECT current_setting('spy.seen')",
        "SELECT CAST(user_id AS bigint) FROM profiles",
        "SELECT 1 / (CASE WHEN tenant_id = 'acme' THEN 1 ELSE 0 END) FROM profiles",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM events WHERE user_id > 'a'",
        "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM workflow_why_not",
        "SELECT * FROM pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
        "CREATE TEMP VIEW mine AS SELECT * FROM events; SELECT DISTINCT tenant_id FROM mine",
        "CREATE TEMP VIEW open WITH (security_invoker = false) AS SELECT * FROM profiles; SELECT * FROM open",
        "SELECT * FROM profiles p, LATERAL (SELECT * FROM events e WHERE e.user_id <> p.user_id) x",
        "WITH RECURSIVE a AS (SELECT * FROM membership) SELECT * FROM a",
        "SELECT query_to_xml('SELECT * FROM profiles', true, true, '')",
        "SELECT table_to_xml('profiles', true, true, '')",
    ];
    for sql in innocent {
        says_nothing_of_the_rival(&mut session, sql);
    }
    let seen = told(&mut session, "SELECT current_setting('spy.seen')");
    assert!(seen.contains("acme") && seen.contains("ann@example.com"), "it was asked of the tenant's own: {seen}");
    let copied = block_on(async {
        use futures_util::TryStreamExt;
        let stream = session.copy_out_raw("COPY (SELECT * FROM events) TO STDOUT").await.unwrap();
        stream
            .try_fold(Vec::new(), |mut all, bytes| async move {
                all.extend_from_slice(&bytes);
                Ok(all)
            })
            .await
            .unwrap()
    });
    let copied = String::from_utf8(copied).unwrap();
    assert!(copied.contains("ann") && !copied.contains("secret-bob"));
}

#[test]
fn a_swap_changes_nothing_for_analysts_and_who_is_none_any_more_sees_nothing() {
    let Some(mut shop) = Shop::open() else { return };
    let count = "SELECT count(*), min(tenant_id), max(tenant_id) FROM events";
    let mut session = shop.analyst();
    assert_eq!(told(&mut session, count), "20|acme|acme");
    let world = &shop.world;
    let go_on = &mut |_| ControlFlow::Continue(());
    block_on(rebuild(world.log.clone(), &world.place, &world.namespace, &Options::default(), go_on)).unwrap();
    assert_eq!(told(&mut session, count), "20|acme|acme", "in the same session");
    says_nothing_of_the_rival(&mut session, "SELECT * FROM workflow_effects");
    shop.options.analysts.clear();
    shop.world.place = Place::postgres(&shop.options).unwrap();
    shop.world.project();
    assert_eq!(told(&mut session, count), "0||");
}

#[test]
fn roles_that_no_policy_would_hold_are_refused() {
    let Some(url) = database() else { return };
    let (member, bypassing) = (fresh_name("member"), fresh_name("bypassing"));
    let owner = fresh_name("owner");
    let mut admin = connect(url, None);
    let roles = format!(
        "CREATE ROLE {owner} LOGIN PASSWORD 'open'; CREATE ROLE {member} LOGIN; GRANT {owner} TO {member}; CREATE ROLE {bypassing} LOGIN BYPASSRLS; \
         DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {owner}', current_database()); END $$"
    );
    run(&mut admin, &roles).unwrap();
    block_on(admin.close()).unwrap();
    let (_, rest) = url.split_once('@').unwrap();
    let url = format!("postgres://{owner}:open@{rest}");
    for (role, why) in
        [("postgres", "superuser"), (&member, "member"), (&owner, "owns"), (&bypassing, "BYPASSRLS"), ("nobody_here", "CREATE ROLE")]
    {
        let analysts = vec![Analyst { role: role.to_owned(), tenant: TenantId::new("acme").unwrap() }];
        let place =
            Place::postgres(&PostgresOptions { url: url.clone(), analysts, timeout_ms: 60_000, ..PostgresOptions::default() }).unwrap();
        let refused = block_on(place.check()).unwrap_err().to_string();
        assert!(refused.starts_with("postgres.analysts") && refused.contains(why), "{role}: {refused}");
    }
}
