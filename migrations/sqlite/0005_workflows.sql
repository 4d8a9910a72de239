-- Workflows: what `journal` says, folded. Read them through the views workflow_* (views.sql), which join and name everything.
--
-- Ids of our own are places in the log (offset << 12 | partition), so that rows lie in the order in which they began, neighbours share
-- pages, and a rebuild gives the same. Only what is open is looked up while projecting, by small partial indexes. The others begin with a
-- bucket (see `events`) of some ten thousand rows: ids are hashes, and a transaction writes every page of the newest bucket anew.

CREATE TABLE wf_definitions (
    definition_ref INTEGER PRIMARY KEY,
    workflow       TEXT NOT NULL,
    digest         TEXT NOT NULL,
    -- Whether new entries go to it.
    is_active      INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE wf_runs (
    run_ref        INTEGER PRIMARY KEY,
    tenant_id      TEXT NOT NULL,
    run_id         TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    subject        TEXT NOT NULL,
    run_key        TEXT,
    cause          TEXT NOT NULL,
    parent_subject TEXT,
    parent_run     TEXT,
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    -- running | waiting | paused, then how it ended: completed | goal | failed | cancelled | terminated | merged
    status         TEXT NOT NULL,
    outcome        TEXT,
    -- Where it is, or where it ended.
    nodes          TEXT,
    since          INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    paused_at      INTEGER,
    paused_by      TEXT,
    pause_reason   TEXT,
    goal           TEXT,
    goal_at        INTEGER,
    visits         INTEGER NOT NULL,
    facts          INTEGER NOT NULL,
    bucket         INTEGER AS (run_ref >> 28) VIRTUAL
);
CREATE INDEX wf_runs_open ON wf_runs (run_id) WHERE ended_at IS NULL;
CREATE INDEX wf_runs_by_id ON wf_runs (bucket, run_id);
CREATE INDEX wf_runs_by_subject ON wf_runs (bucket, subject);
CREATE INDEX wf_runs_paused ON wf_runs (run_ref) WHERE paused_at IS NOT NULL;

-- One row per step that is open: where runs are, what they do there, and until when.
CREATE TABLE wf_steps (
    run_ref    INTEGER NOT NULL,
    visit      INTEGER NOT NULL,
    node       TEXT NOT NULL,
    -- arriving | delay | wait | ask | effect | approval | start | ready
    doing      TEXT NOT NULL,
    since      INTEGER NOT NULL,
    until      INTEGER,
    awaits     TEXT,
    effect_ref INTEGER,
    PRIMARY KEY (run_ref, visit)
) WITHOUT ROWID;
CREATE INDEX wf_steps_due ON wf_steps (until) WHERE until IS NOT NULL;

CREATE TABLE wf_effects (
    effect_ref    INTEGER PRIMARY KEY,
    run_ref       INTEGER NOT NULL,
    visit         INTEGER NOT NULL,
    node          TEXT NOT NULL,
    -- The idempotency key.
    effect_id     TEXT NOT NULL,
    performer     TEXT NOT NULL,
    target        TEXT NOT NULL,
    purpose       TEXT,
    -- requested | started | retrying | unknown | done | failed | refused | cancelled | settled
    status        TEXT NOT NULL,
    attempts      INTEGER NOT NULL,
    requested_at  INTEGER NOT NULL,
    started_at    INTEGER,
    finished_at   INTEGER,
    next_try_at   INTEGER,
    failures      INTEGER NOT NULL,
    failed_at     INTEGER,
    last_error    TEXT,
    category      TEXT,
    -- Why no permit was given: a stable name, and words for people.
    refusal_code  TEXT,
    refusal       TEXT,
    executor      TEXT,
    -- How often an attempt is known to have been performed.
    performed     INTEGER NOT NULL,
    -- Taken as done without an answer.
    assumed       INTEGER NOT NULL,
    settled       TEXT,
    result        TEXT,
    bucket        INTEGER AS (effect_ref >> 26) VIRTUAL
);
CREATE INDEX wf_effects_by_run ON wf_effects (run_ref);
CREATE INDEX wf_effects_by_id ON wf_effects (bucket, effect_id);

-- What channel effects have beside the others.
CREATE TABLE wf_messages (
    effect_ref   INTEGER PRIMARY KEY,
    address      TEXT,
    template     TEXT,
    permit_until INTEGER,
    sent_at      INTEGER
);

CREATE TABLE wf_approvals (
    run_ref      INTEGER NOT NULL,
    visit        INTEGER NOT NULL,
    node         TEXT NOT NULL,
    who          TEXT NOT NULL,
    shows        TEXT,
    requested_at INTEGER NOT NULL,
    deadline     INTEGER NOT NULL,
    -- open | approved | rejected | cancelled
    status       TEXT NOT NULL,
    decided_at   INTEGER,
    decided_by   TEXT,
    comment      TEXT,
    late_clicks  INTEGER NOT NULL,
    PRIMARY KEY (run_ref, visit)
) WITHOUT ROWID;
CREATE INDEX wf_approvals_open ON wf_approvals (deadline) WHERE status = 'open';

-- Who was assigned to which arm of which split, and whether the run reached a goal after that.
CREATE TABLE wf_arms (
    run_ref        INTEGER NOT NULL,
    node           TEXT NOT NULL,
    tenant_id      TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    arm            TEXT NOT NULL,
    assigned_at    INTEGER NOT NULL,
    goal           TEXT,
    converted_at   INTEGER,
    PRIMARY KEY (run_ref, node)
) WITHOUT ROWID;

-- Arrivals and departures per node and UTC day. A loop's node counts every round.
CREATE TABLE wf_funnel (
    tenant_id      TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    day            TEXT NOT NULL,
    node           TEXT NOT NULL,
    entered        INTEGER NOT NULL,
    left           INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node)
) WITHOUT ROWID;

CREATE TABLE wf_ways (
    tenant_id      TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    day            TEXT NOT NULL,
    node           TEXT NOT NULL,
    way            TEXT NOT NULL,
    runs           INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node, way)
) WITHOUT ROWID;

-- Failed attempts per day, all of them: an effect's own row has its last.
CREATE TABLE wf_errors (
    tenant_id      TEXT NOT NULL,
    definition_ref INTEGER NOT NULL,
    day            TEXT NOT NULL,
    node           TEXT NOT NULL,
    target         TEXT NOT NULL,
    category       TEXT NOT NULL,
    errors         INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, definition_ref, day, node, target, category)
) WITHOUT ROWID;

-- Who would have entered a workflow and did not, and why.
CREATE TABLE wf_skips (
    skip_ref  INTEGER PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    reason    TEXT NOT NULL,
    cause     TEXT NOT NULL,
    at        INTEGER NOT NULL,
    bucket    INTEGER AS (skip_ref >> 29) VIRTUAL
);
CREATE INDEX wf_skips_by_subject ON wf_skips (bucket, subject);

-- What someone should be told: effects that were given up and will fail for everyone until somebody acts.
CREATE TABLE wf_notifications (
    notification_ref INTEGER PRIMARY KEY,
    run_ref          INTEGER NOT NULL,
    node             TEXT NOT NULL,
    at               INTEGER NOT NULL,
    category         TEXT NOT NULL,
    severity         TEXT NOT NULL,
    text             TEXT NOT NULL
);

-- Addresses of people that nothing is sent to, by a hash: bounces, complaints, an operator's word.
CREATE TABLE wf_suppressions (
    tenant_id TEXT NOT NULL,
    subject   TEXT NOT NULL,
    channel   TEXT NOT NULL,
    address   TEXT NOT NULL,
    reason    TEXT NOT NULL,
    since     INTEGER NOT NULL,
    until     INTEGER,
    PRIMARY KEY (tenant_id, subject, channel, address)
) WITHOUT ROWID;

-- How far the time of each partition of `journal` is: the now of its timers.
CREATE TABLE wf_time (
    partition INTEGER PRIMARY KEY,
    time      INTEGER NOT NULL
);

INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('wf_runs', 'wf_runs_by_id', '100000000 8192 1'),
    ('wf_runs', 'wf_runs_by_subject', '100000000 8192 20'),
    ('wf_runs', 'wf_runs_open', '100000 1'),
    ('wf_runs', 'wf_runs_paused', '1000 1'),
    ('wf_steps', 'wf_steps', '100000 1 1'),
    ('wf_steps', 'wf_steps_due', '100000 1'),
    ('wf_effects', 'wf_effects_by_run', '100000000 5'),
    ('wf_effects', 'wf_effects_by_id', '100000000 8192 1'),
    ('wf_skips', 'wf_skips_by_subject', '100000000 32768 20');
