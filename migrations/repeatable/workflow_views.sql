-- What workflows do and did, for people: times as text (UTC), ids resolved to names. docs/sql.md has a query for each question.

-- The time that timers go by: in a namespace of wall time the day's, in one of event time what was stated.
DROP VIEW IF EXISTS workflow_now;
CREATE VIEW workflow_now AS
SELECT coalesce((SELECT min(time) FROM wf_time), CAST(unixepoch('subsec') * 1000 AS BIGINT)) AS ms,
       datetime(coalesce((SELECT min(time) FROM wf_time) / 1000.0, unixepoch('subsec')), 'unixepoch') AS time;

DROP VIEW IF EXISTS workflow_runs;
CREATE VIEW workflow_runs AS
SELECT r.tenant_id,
       r.run_id,
       d.workflow,
       d.digest,
       r.subject,
       CASE WHEN r.subject LIKE 'u:%' THEN substr(r.subject, 3) END AS user_id,
       r.run_key,
       r.status,
       r.outcome,
       r.nodes,
       (SELECT group_concat(a.node || '=' || a.arm, ', ' ORDER BY a.node) FROM wf_arms a WHERE a.run_ref = r.run_ref) AS arms,
       datetime(r.started_at / 1000.0, 'unixepoch') AS started_at,
       datetime(r.ended_at / 1000.0, 'unixepoch') AS ended_at,
       datetime(r.since / 1000.0, 'unixepoch') AS since,
       datetime(r.updated_at / 1000.0, 'unixepoch') AS updated_at,
       datetime(r.paused_at / 1000.0, 'unixepoch') AS paused_at,
       r.paused_by,
       r.pause_reason,
       r.goal,
       datetime(r.goal_at / 1000.0, 'unixepoch') AS goal_at,
       r.cause,
       r.parent_subject,
       r.parent_run,
       r.visits,
       r.facts,
       r.run_ref
FROM wf_runs r
JOIN wf_definitions d ON d.definition_ref = r.definition_ref;

-- Every version of a workflow that had a run or took entries.
DROP VIEW IF EXISTS workflow_versions;
CREATE VIEW workflow_versions AS
SELECT d.workflow, d.digest, d.is_active,
       -- Tenants, with commas between; `everyone` where it is of the whole namespace.
       (SELECT group_concat(iif(a.tenant_id = '', 'everyone', a.tenant_id), ', ' ORDER BY a.tenant_id)
        FROM wf_active a WHERE a.definition_ref = d.definition_ref) AS active_for,
       p.about,
       -- Of the last time that it was published; each time has a row of workflow_publications.
       datetime(p.published_at / 1000.0, 'unixepoch') AS published_at,
       p.published_by,
       datetime(p.retired_at / 1000.0, 'unixepoch') AS retired_at,
       p.retired_by
FROM wf_definitions d
LEFT JOIN wf_publications p ON p.publication_ref =
       (SELECT max(q.publication_ref) FROM wf_publications q WHERE q.workflow = d.workflow AND q.digest = d.digest);

DROP VIEW IF EXISTS workflow_publications;
CREATE VIEW workflow_publications AS
SELECT iif(tenant_id = '', 'everyone', tenant_id) AS published_for, workflow, digest, about,
       datetime(published_at / 1000.0, 'unixepoch') AS published_at, published_by,
       NOT is_over AS is_active, datetime(retired_at / 1000.0, 'unixepoch') AS retired_at, retired_by
FROM wf_publications;

-- Where open runs are, what they do there and until when.
DROP VIEW IF EXISTS workflow_nodes;
CREATE VIEW workflow_nodes AS
SELECT r.tenant_id,
       r.run_id,
       d.workflow,
       d.digest,
       r.subject,
       s.node,
       s.doing,
       datetime(s.since / 1000.0, 'unixepoch') AS since,
       datetime(s.until / 1000.0, 'unixepoch') AS until,
       s.awaits,
       r.status,
       e.effect_id
FROM wf_steps s
JOIN wf_runs r ON r.run_ref = s.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
LEFT JOIN wf_effects e ON e.effect_ref = s.effect_ref;

DROP VIEW IF EXISTS workflow_effects;
CREATE VIEW workflow_effects AS
SELECT r.tenant_id,
       e.effect_id,
       r.run_id,
       d.workflow,
       d.digest,
       r.subject,
       e.node,
       e.performer,
       e.target,
       e.purpose,
       e.status,
       e.attempts,
       datetime(e.requested_at / 1000.0, 'unixepoch') AS requested_at,
       datetime(e.started_at / 1000.0, 'unixepoch') AS started_at,
       datetime(e.finished_at / 1000.0, 'unixepoch') AS finished_at,
       datetime(e.next_try_at / 1000.0, 'unixepoch') AS next_try_at,
       e.failures,
       datetime(e.failed_at / 1000.0, 'unixepoch') AS failed_at,
       e.last_error,
       e.category,
       e.refusal_code,
       e.refusal,
       e.executor,
       e.performed,
       e.assumed,
       e.settled,
       e.result
FROM wf_effects e
JOIN wf_runs r ON r.run_ref = e.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref;

-- Messages: the effects that go to a person through a channel.
DROP VIEW IF EXISTS workflow_messages;
CREATE VIEW workflow_messages AS
SELECT r.tenant_id,
       e.effect_id,
       r.run_id,
       d.workflow,
       r.subject,
       CASE WHEN r.subject LIKE 'u:%' THEN substr(r.subject, 3) END AS user_id,
       e.node,
       e.target AS channel,
       e.purpose,
       m.template,
       m.address,
       e.status,
       datetime(e.requested_at / 1000.0, 'unixepoch') AS requested_at,
       datetime(m.sent_at / 1000.0, 'unixepoch') AS sent_at,
       datetime(m.permit_until / 1000.0, 'unixepoch') AS permit_until,
       e.refusal_code,
       e.refusal,
       e.performed
FROM wf_messages m
JOIN wf_effects e ON e.effect_ref = m.effect_ref
JOIN wf_runs r ON r.run_ref = e.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref;

DROP VIEW IF EXISTS workflow_approvals;
CREATE VIEW workflow_approvals AS
SELECT r.tenant_id,
       r.run_id,
       d.workflow,
       r.subject,
       a.node,
       a.who,
       a.shows,
       datetime(a.requested_at / 1000.0, 'unixepoch') AS requested_at,
       datetime(a.deadline / 1000.0, 'unixepoch') AS deadline,
       a.status,
       datetime(a.decided_at / 1000.0, 'unixepoch') AS decided_at,
       a.decided_by,
       a.decided_link,
       a.comment,
       a.late_clicks
FROM wf_approvals a
JOIN wf_runs r ON r.run_ref = a.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref;

-- Who was assigned to which arm, and whether the run reached a goal after that.
DROP VIEW IF EXISTS workflow_arms;
CREATE VIEW workflow_arms AS
SELECT a.tenant_id,
       r.run_id,
       d.workflow,
       d.digest,
       r.subject,
       a.node,
       a.arm,
       datetime(a.assigned_at / 1000.0, 'unixepoch') AS assigned_at,
       a.goal,
       datetime(a.converted_at / 1000.0, 'unixepoch') AS converted_at
FROM wf_arms a
JOIN wf_runs r ON r.run_ref = a.run_ref
JOIN wf_definitions d ON d.definition_ref = a.definition_ref;

DROP VIEW IF EXISTS workflow_conversions;
CREATE VIEW workflow_conversions AS
SELECT a.tenant_id,
       d.workflow,
       d.digest,
       a.node,
       a.arm,
       count(*) AS runs,
       count(a.converted_at) AS converted,
       round(1.0 * count(a.converted_at) / count(*), 4) AS rate
FROM wf_arms a
JOIN wf_definitions d ON d.definition_ref = a.definition_ref
GROUP BY a.tenant_id, d.workflow, d.digest, a.node, a.arm;

-- Arrivals at and departures from each node, of the runs that began on a UTC day; whoever is there now has arrived and not left.
DROP VIEW IF EXISTS workflow_funnel;
CREATE VIEW workflow_funnel AS
SELECT f.tenant_id, d.workflow, d.digest, f.day, f.node, f.entered, f."left"
FROM wf_funnel f
JOIN wf_definitions d ON d.definition_ref = f.definition_ref;

-- The departures by the way that was taken.
DROP VIEW IF EXISTS workflow_ways;
CREATE VIEW workflow_ways AS
SELECT w.tenant_id, d.workflow, d.digest, w.day, w.node, w.way, w.runs
FROM wf_ways w
JOIN wf_definitions d ON d.definition_ref = w.definition_ref;

-- Failed attempts per UTC day.
DROP VIEW IF EXISTS workflow_errors;
CREATE VIEW workflow_errors AS
SELECT e.tenant_id, d.workflow, d.digest, e.day, e.node, e.target, e.category, e.errors
FROM wf_errors e
JOIN wf_definitions d ON d.definition_ref = e.definition_ref;

-- Who would have entered a workflow and did not.
DROP VIEW IF EXISTS workflow_skips;
CREATE VIEW workflow_skips AS
SELECT tenant_id, subject, workflow, reason, cause, datetime(at / 1000.0, 'unixepoch') AS at
FROM wf_skips;

-- What someone should be told, because it fails for everyone until somebody acts.
DROP VIEW IF EXISTS workflow_notifications;
CREATE VIEW workflow_notifications AS
SELECT r.tenant_id, datetime(n.at / 1000.0, 'unixepoch') AS at, r.run_id, d.workflow, r.subject, n.node, n.category, n.severity, n.text
FROM wf_notifications n
JOIN wf_runs r ON r.run_ref = n.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref;

DROP VIEW IF EXISTS workflow_suppressions;
CREATE VIEW workflow_suppressions AS
SELECT tenant_id, subject, channel, address, reason, said_by, datetime(since / 1000.0, 'unixepoch') AS since,
       datetime(until / 1000.0, 'unixepoch') AS until
FROM wf_suppressions;

-- What fires by itself: delays, time-outs of waits, deadlines of approvals, next tries. Paused runs fire nothing.
DROP VIEW IF EXISTS workflow_timers;
CREATE VIEW workflow_timers AS
SELECT r.tenant_id,
       datetime(s.until / 1000.0, 'unixepoch') AS due,
       r.run_id,
       d.workflow,
       r.subject,
       s.node,
       s.doing,
       s.until AS due_ms
FROM wf_steps s
JOIN wf_runs r ON r.run_ref = s.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE s.until IS NOT NULL AND r.paused_at IS NULL;

-- What does not go on as it should: paused runs, effects that failed or that nobody knows about, effects without a result for an hour,
-- approvals past their deadline.
DROP VIEW IF EXISTS workflow_stuck;
CREATE VIEW workflow_stuck AS
SELECT r.tenant_id, r.run_id, d.workflow, r.subject, r.nodes AS node, 'paused' AS why, r.pause_reason AS detail,
       datetime(r.paused_at / 1000.0, 'unixepoch') AS since, NULL AS next_try_at
FROM wf_runs r
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE r.paused_at IS NOT NULL
UNION ALL
SELECT r.tenant_id, r.run_id, d.workflow, r.subject, s.node,
       CASE WHEN e.status IN ('retrying', 'unknown', 'failed') THEN e.status ELSE 'no result' END,
       coalesce(e.last_error, e.refusal, e.performer || ' ' || e.target), datetime(e.requested_at / 1000.0, 'unixepoch'), datetime(e.next_try_at / 1000.0, 'unixepoch')
FROM wf_steps s
JOIN wf_effects e ON e.effect_ref = s.effect_ref
JOIN wf_runs r ON r.run_ref = s.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE r.paused_at IS NULL AND s.doing = 'effect'
  AND (e.status IN ('unknown', 'failed') OR (e.status = 'retrying' AND e.failures > 0) OR (e.refusal_code IS NULL AND e.requested_at < (SELECT ms FROM workflow_now) - 3600000))
UNION ALL
SELECT r.tenant_id, r.run_id, d.workflow, r.subject, a.node, 'overdue', 'decision of ' || a.who, datetime(a.requested_at / 1000.0, 'unixepoch'), NULL
FROM wf_approvals a
JOIN wf_runs r ON r.run_ref = a.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE a.status = 'open' AND a.deadline < (SELECT ms FROM workflow_now) AND r.paused_at IS NULL;

-- Why somebody did not get something: entries that were skipped, holdouts, pauses, what approvals said no to, permits that were refused,
-- attempts that failed, addresses that nothing is sent to.
DROP VIEW IF EXISTS workflow_why_not;
CREATE VIEW workflow_why_not AS
SELECT tenant_id, subject, workflow, datetime(at / 1000.0, 'unixepoch') AS at, 'not entered' AS what, reason AS why
FROM wf_skips
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(a.assigned_at / 1000.0, 'unixepoch'), 'held out', a.node
FROM wf_runs r
JOIN wf_arms a ON a.run_ref = r.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE a.arm IN ('holdout', 'control')
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(r.paused_at / 1000.0, 'unixepoch'), 'paused', r.pause_reason
FROM wf_runs r
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE r.paused_at IS NOT NULL
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(r.ended_at / 1000.0, 'unixepoch'), r.status, coalesce(r.outcome, '')
FROM wf_runs r
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE r.status IN ('goal', 'failed', 'cancelled', 'terminated', 'merged')
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(coalesce(a.decided_at, a.requested_at) / 1000.0, 'unixepoch'), 'approval ' || a.status,
       a.node || coalesce(' by ' || a.decided_by, '') || coalesce(': ' || a.comment, '')
FROM wf_runs r
JOIN wf_approvals a ON a.run_ref = r.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE a.status <> 'approved'
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(e.requested_at / 1000.0, 'unixepoch'), 'not permitted', e.node || ': ' || e.refusal
FROM wf_runs r
JOIN wf_effects e ON e.run_ref = r.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE e.refusal IS NOT NULL
UNION ALL
SELECT r.tenant_id, r.subject, d.workflow, datetime(e.failed_at / 1000.0, 'unixepoch'), e.status, e.node || ': ' || e.last_error
FROM wf_runs r
JOIN wf_effects e ON e.run_ref = r.run_ref
JOIN wf_definitions d ON d.definition_ref = r.definition_ref
WHERE e.last_error IS NOT NULL AND e.status <> 'done'
UNION ALL
SELECT tenant_id, subject, NULL, datetime(since / 1000.0, 'unixepoch'), 'suppressed', channel || ': ' || reason
FROM wf_suppressions
WHERE subject NOT LIKE '@:%';
