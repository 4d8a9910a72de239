-- Views for people: times as text (UTC), money in units, the design document's names. Made anew whenever this file changes.
-- The same text for SQLite and for Postgres, where migrations/postgres/functions.sql has the functions of SQLite's that are used here.
-- So: no text where a number is meant (CAST what JSON gives), truths are tested and never added, `left` stands in quotes.
-- docs/sql.md describes each and has queries to begin with.

-- Known users, with the design document's columns. `segment` lists all of them; `ltv_prediction` waits for a learned model.
DROP VIEW IF EXISTS users;
CREATE VIEW users AS
SELECT tenant_id,
       user_id,
       CASE WHEN json_valid(traits) THEN json_extract(traits, '$.email') END AS email,
       datetime(first_seen / 1000.0, 'unixepoch') AS created_at,
       datetime(last_seen / 1000.0, 'unixepoch') AS last_seen,
       traits,
       (SELECT group_concat(value, ', ') FROM json_each(segments)) AS segment,
       CAST(NULL AS REAL) AS ltv_prediction,
       churn AS churn_risk
FROM profiles
WHERE user_id IS NOT NULL;

-- Known users as leads: the lead score, and how far they have come.
DROP VIEW IF EXISTS leads;
CREATE VIEW leads AS
SELECT tenant_id,
       user_id AS lead_id,
       CASE WHEN json_valid(traits) THEN json_extract(traits, '$.email') END AS email,
       CASE WHEN json_valid(traits) THEN json_extract(traits, '$.phone') END AS phone,
       coalesce(first_touch_source, first_touch_referrer) AS source,
       lead AS score,
       lead_qualified AS qualified,
       CASE WHEN orders > 0 THEN 'converted'
            WHEN lead_qualified THEN 'qualified'
            WHEN email_sent + push_sent + sms_sent + in_app_sent > 0 THEN 'contacted'
            ELSE 'new' END AS status,
       traits AS properties,
       datetime(first_seen / 1000.0, 'unixepoch') AS created_at
FROM profiles
WHERE user_id IS NOT NULL AND lead IS NOT NULL;

DROP VIEW IF EXISTS v_leads;
CREATE VIEW v_leads AS
SELECT tenant_id, lead_id, email, source, round(score, 3) AS score, status, created_at
FROM leads
WHERE status <> 'converted';

-- People who have bought.
DROP VIEW IF EXISTS v_customers;
CREATE VIEW v_customers AS
SELECT tenant_id,
       user_id,
       CASE WHEN json_valid(traits) THEN json_extract(traits, '$.email') END AS email,
       orders,
       revenue,
       refunds,
       order_mean,
       date(first_order / 1000.0, 'unixepoch') AS first_order,
       date(last_order / 1000.0, 'unixepoch') AS last_order,
       days_since_order,
       repeat_purchases,
       round(engagement, 3) AS engagement,
       round(churn, 3) AS churn,
       (SELECT group_concat(value, ', ') FROM json_each(segments)) AS segments
FROM profiles
WHERE user_id IS NOT NULL AND orders > 0;

-- Why a score is what it is: one row per reason, the strongest first.
DROP VIEW IF EXISTS v_scores;
CREATE VIEW v_scores AS
SELECT p.tenant_id,
       p.subject,
       score.value ->> '$.score' AS score,
       CAST(score.value ->> '$.value' AS DOUBLE PRECISION) AS value,
       score.value ->> '$.model' AS model,
       CAST(score.value ->> '$.version' AS BIGINT) AS version,
       reason.key + 1 AS rank,
       reason.value ->> '$.feature' AS feature,
       CAST(reason.value ->> '$.effect' AS DOUBLE PRECISION) AS effect
FROM profiles p
CROSS JOIN json_each(p.score_reasons) score
LEFT JOIN json_each(score.value, '$.reasons') reason ON TRUE;

DROP VIEW IF EXISTS v_daily;
CREATE VIEW v_daily AS
SELECT tenant_id, day, events, actives
FROM daily_totals;

-- Revenue per day and currency in units; the table has exact millionths.
DROP VIEW IF EXISTS v_revenue;
CREATE VIEW v_revenue AS
SELECT tenant_id,
       day,
       currency,
       orders,
       revenue_micros / 1000000.0 AS revenue,
       refunds_micros / 1000000.0 AS refunds
FROM daily_revenue;

DROP VIEW IF EXISTS v_segments_now;
CREATE VIEW v_segments_now AS
SELECT tenant_id, segment, sum(entered) - sum("left") AS members, sum(entered) AS entered_ever, sum("left") AS left_ever
FROM segment_daily
GROUP BY tenant_id, segment;

-- A segment's size at the end of each day on which it changed.
DROP VIEW IF EXISTS v_segment_sizes;
CREATE VIEW v_segment_sizes AS
SELECT tenant_id, segment, day, entered, "left", sum(entered - "left") OVER (PARTITION BY tenant_id, segment ORDER BY day) AS members
FROM segment_daily;

-- People who have reached at least each step of each declared funnel.
DROP VIEW IF EXISTS v_funnel;
CREATE VIEW v_funnel AS
WITH RECURSIVE numbers (step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM numbers WHERE step < 12),
people AS (
    SELECT p.tenant_id,
           f.value ->> '$.funnel' AS funnel,
           CAST(f.value ->> '$.step' AS BIGINT) AS reached,
           CAST(f.value ->> '$.steps' AS BIGINT) AS steps
    FROM profiles p CROSS JOIN json_each(p.funnel_steps) f
)
SELECT tenant_id, funnel, step, sum(CASE WHEN reached >= step THEN 1 ELSE 0 END) AS people
FROM people JOIN numbers ON step <= steps
GROUP BY tenant_id, funnel, step;

-- Events with the user an anonymous id belonged to: the tie in force at the event's time, else the first one after it.
DROP VIEW IF EXISTS v_events;
CREATE VIEW v_events AS
SELECT e.tenant_id,
       e.event_id,
       coalesce(e.user_id,
                (SELECT i.user_id FROM identities i
                 WHERE i.tenant_id = e.tenant_id AND i.anonymous_id = e.anonymous_id AND i.since <= e.timestamp
                 ORDER BY i.since DESC, i.ordinal DESC LIMIT 1),
                (SELECT i.user_id FROM identities i
                 WHERE i.tenant_id = e.tenant_id AND i.anonymous_id = e.anonymous_id
                 ORDER BY i.ordinal LIMIT 1)) AS user_id,
       e.anonymous_id,
       e.event_name,
       e.type,
       strftime('%Y-%m-%d %H:%M:%f', e.timestamp / 1000.0, 'unixepoch') AS time,
       e.properties,
       e.context,
       e.session_id,
       e.message_id,
       e.source
FROM events e;

-- Sessions as the features define them (a pause of more than 30 minutes ends one), from the events themselves. Filter by user.
DROP VIEW IF EXISTS v_sessions;
CREATE VIEW v_sessions AS
WITH acts AS (
    SELECT tenant_id, coalesce('u:' || user_id, 'a:' || anonymous_id) AS subject, timestamp, event_id
    FROM events WHERE type IN ('track', 'page', 'screen')
),
marked AS (
    SELECT *, CASE WHEN timestamp - lag(timestamp) OVER person <= 1800000 THEN 0 ELSE 1 END AS begins
    FROM acts WINDOW person AS (PARTITION BY tenant_id, subject ORDER BY timestamp, event_id)
),
numbered AS (
    SELECT *, sum(begins) OVER (PARTITION BY tenant_id, subject ORDER BY timestamp, event_id) AS number FROM marked
)
SELECT tenant_id,
       subject,
       number,
       datetime(min(timestamp) / 1000.0, 'unixepoch') AS started,
       (max(timestamp) - min(timestamp)) / 1000 AS seconds,
       count(*) AS events
FROM numbered
GROUP BY tenant_id, subject, number;

-- Records that reached nobody: dead letters with their reason, and what was filtered.
DROP VIEW IF EXISTS v_lost;
CREATE VIEW v_lost AS
SELECT tenant_id, 'dead_lettered' AS kind, reason, detail, message_id, datetime(at / 1000.0, 'unixepoch') AS at, stage, origin_partition AS partition,
       origin_offset AS log_offset
FROM dead_letters
UNION ALL
SELECT tenant_id, kind, reason, NULL, message_id, datetime(at / 1000.0, 'unixepoch'), stage, log_partition, log_offset
FROM outcomes
WHERE kind = 'filtered';

DROP VIEW IF EXISTS v_outcomes;
CREATE VIEW v_outcomes AS
SELECT stage, kind, reason, records, round(100.0 * records / sum(records) OVER (PARTITION BY stage), 3) AS percent
FROM outcome_totals;

-- How far the read model is behind the log.
DROP VIEW IF EXISTS v_status;
CREATE VIEW v_status AS
SELECT topic, partition, next_offset, lag, applied, skipped, unreadable, lost,
       datetime(applied_time / 1000.0, 'unixepoch') AS newest_record, datetime(updated_at / 1000.0, 'unixepoch') AS updated
FROM processing_status;
